"""Which models and settings our own search covers: it says so after it was compared with the model's plain forward pass."""

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel

from llmft.models.attention import UnsupportedAttention
from llmft.models.decoding.decoder import Prompts
from llmft.models.decoding.flat_pass import Flat
from llmft.models.decoding.pair import Pairs
from llmft.models.decoding.weights import StandIns
from llmft.models.family import Family
from llmft.models.load import Pretrained
from llmft.models.path_check import KNOWN_LAYERS

# Written out although transformers has the same defaults: where a setting is missing, its `generate` takes the model's own.
NEUTRAL = {
    "use_cache": True,
    "min_length": 0,
    "early_stopping": False,
    "typical_p": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "num_return_sequences": 1,
    "diversity_penalty": 0.0,
    "num_beam_groups": 1,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}

# What our search reads of a generation configuration; the rest has to be neutral or open.
READ = {
    *("max_new_tokens", "num_beams", "early_stopping", "length_penalty", "do_sample", "temperature", "top_k", "top_p"),
    *("repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id"),
    "transformers_version",
}

ROTARY = {None, "default", "linear", "llama3", "yarn"}  # others turn by the longest text of a batch, so neighbours would count
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""Of all scores together. After single tokens those of SmolLM2-135M in bf16 were up to 0.03 from fp32's by transformers' own pass, and up
to 0.05 by ours, together 0.02."""
DEPTH = 24  # tokens of a source that are compared
FOLLOW = [1, 0, 2, 2]  # whom the texts of two sources follow after the first token, where there are two of each

_compared: WeakKeyDictionary[PreTrainedModel, dict[tuple[torch.dtype, bool, bool], bool]] = WeakKeyDictionary()


def covered(
    pretrained: Pretrained,
    config: GenerationConfig,
    sources: Sequence[Sequence[int]],
    precision: torch.dtype,
    weights: StandIns,
) -> bool:
    """Whether our own search may write these texts; if not, transformers' `generate` does."""
    model = pretrained.model
    if not (reads_all(config) and is_plain(model)):
        return False
    known = _compared.setdefault(model, {})
    kind = (precision, config.num_beams > 1, weights.flat is not None)
    if kind not in known:
        known[kind] = agrees(pretrained, config, sources, precision, weights)
    return known[kind]


def reads_all(config: GenerationConfig) -> bool:
    """Whether our search knows every setting of a configuration."""
    found = config.to_diff_dict()
    unread = {name for name, value in found.items() if name not in READ and value not in (None, NEUTRAL.get(name))}
    return not unread and bool(config.max_new_tokens) and not (config.do_sample and config.num_beams > 1)


def is_plain(model: PreTrainedModel) -> bool:
    """Whether nothing known speaks against a model: a search or a cache of its own, layers or positions of another kind."""
    config = model.config.get_text_config(decoder=True)
    rotary = getattr(config, "rope_parameters", None) or {}
    kinds = {each.get("rope_type") for each in rotary.values() if isinstance(each, dict)} or {rotary.get("rope_type")}
    return (
        getattr(type(model), "generate", None) is GenerationMixin.generate
        and model._supports_default_dynamic_cache()  # type: ignore[operator]
        and not getattr(model, "_is_stateful", False)
        and not hasattr(model, "hf_device_map")
        and set(getattr(config, "layer_types", None) or ()) <= KNOWN_LAYERS
        and kinds <= ROTARY
    )


def agrees(
    pretrained: Pretrained,
    config: GenerationConfig,
    sources: Sequence[Sequence[int]],
    precision: torch.dtype,
    weights: StandIns,
) -> bool:
    """Write a few tokens after the beginnings of two sources, and compare all scores with those of the plain forward pass.

    With beams the two texts of a source change places on the way. Each is read alone by the plain pass, so a search on which
    texts touch each other does not agree either.
    """
    longest, shortest = max(sources, key=len), min(sources, key=len)
    beams = 2 if config.num_beams > 1 else 1
    given = [list(longest[:DEPTH]), list(shortest[: DEPTH // 2])]
    # the pad token is no text: M2M100 counts it as no position, and differently so in one pass and token by token
    usual = [token for source in given for token in source if token != config.pad_token_id] or [0]
    steps = min(3, config.max_new_tokens - 1)  # there is room for no more in the model's context
    tokens = np.random.default_rng(0).choice(usual, (steps, 2 * beams)).tolist()
    try:
        with weights.in_place():
            found, windows = scores_of_search(pretrained, config, given, tokens, beams, weights.flat)
        expected = scores_of_model(pretrained, config, given, tokens, beams)
    except (UnsupportedAttention, TypeError, ValueError, AttributeError, IndexError, RuntimeError):
        return False  # an architecture that cannot do it fails in its own way: by a keyword, a shape or a mask
    apart = (found - expected).norm() / expected.norm()
    return windows == expected_windows(pretrained.model) and float(apart) <= TOLERANCE[precision]


def scores_of_search(
    pretrained: Pretrained,
    config: GenerationConfig,
    given: Sequence[list[int]],
    tokens: Sequence[list[int]],
    beams: int,
    flat: Flat | None,
) -> tuple[Tensor, int]:
    """Return the scores of our search after each of `tokens`, end to end, and how many layers named their window."""
    model, new = pretrained.model, len(tokens) + 1
    if pretrained.family is Family.encoder_decoder:
        writer: Prompts | Pairs = Pairs(model, 2, new, config.decoder_start_token_id, config.pad_token_id, beams)
    else:
        shared = given[0][:1] if given[0][:1] == given[1][:1] and len(given[1]) > 1 else []
        writer = Prompts(model, 2, len(given[0]), new, beams, shared, flat)
    found = [writer.begin(given).repeat_interleave(beams, 0)]
    for step, each in enumerate(tokens):
        found.append(writer.step(torch.tensor(each, device=model.device)))
        if beams > 1 and step == 0:
            writer.follow(FOLLOW)
    windows = sum(window is not None for window in writer.windows)
    return torch.cat(found), windows


def scores_of_model(
    pretrained: Pretrained, config: GenerationConfig, given: Sequence[list[int]], tokens: Sequence[list[int]], beams: int
) -> Tensor:
    """Return the same scores as the model computes them by itself, one text at a time, all of its tokens in one pass."""
    model, pair = pretrained.model, pretrained.family is Family.encoder_decoder
    texts = [(config.decoder_start_token_id,) if pair else tuple(source) for source in given for _ in range(beams)]
    asked = []
    for step in range(len(tokens) + 1):
        asked += [(row // beams, text) for row, text in enumerate(texts)]
        if step == 1 and beams > 1:
            texts = [texts[parent] for parent in FOLLOW]
        if step < len(tokens):
            texts = [(*text, token) for text, token in zip(texts, tokens[step], strict=True)]
    known: dict[tuple[int, tuple[int, ...]], Tensor] = {}
    for source, text in reversed(asked):  # what goes on from a text comes behind it
        if (source, text) not in known:
            inputs = {"input_ids": given[source], "decoder_input_ids": text} if pair else {"input_ids": text}
            ids = {name: torch.tensor([each], device=model.device) for name, each in inputs.items()}
            logits = model(**ids, use_cache=False).logits[0]
            known |= {(source, text[:stop]): logits[stop - 1 : stop] for stop in range(1, len(text) + 1)}
    return torch.cat([known[each] for each in asked]).float()


def expected_windows(model: PreTrainedModel) -> int:
    """Return how many of a model's layers look back within a window only, each of which has to tell attention so."""
    config = model.config.get_text_config(decoder=True)
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return sum(kind == "sliding_attention" for kind in kinds[: config.num_hidden_layers])
    return config.num_hidden_layers if getattr(config, "sliding_window", None) else 0

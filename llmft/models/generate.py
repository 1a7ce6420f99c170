"""Decoding: prompts or sources in, what the model writes out, one interface for both families that write."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteria

from llmft.config.schema import Generation
from llmft.data.batch import pad_stream, stream_of
from llmft.errors import DoesNotFit
from llmft.hardware.determinism import rng_state, set_rng_state
from llmft.hardware.memory import is_out_of_memory, release
from llmft.hardware.precision import autocast
from llmft.models.family import Family
from llmft.models.load import Pretrained
from llmft.models.token_ids import end_ids as own_ends
from llmft.runs import signals


@dataclass(frozen=True)
class Continuation:
    """Tokens that a model wrote, without start and end tokens; `finished` is "stop" at an end token, "length" at the limit."""

    ids: list[int]
    finished: str


class SignalCheck(StoppingCriteria):
    """Looks for a stop signal at each token; it never ends a text by itself."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **options: object) -> torch.BoolTensor:
        signals.check()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)  # type: ignore[return-value]


# What a model's own generation_config.json keeps its say on: tokens that its weights were trained to begin or end with, or
# never to write (Marian's pad token). How to search is llmft's `generation` alone: lengths, beams, penalties and sampling that
# a model's folder brings along (BART: 4 beams, no repeated trigram) would change results in silence.
KEPT = ("bos_token_id", "forced_eos_token_id", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens")

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


def generation_config(
    generation: Generation, pretrained: Pretrained, end_ids: Sequence[int], pad_id: int, forced_bos: int | None = None
) -> GenerationConfig:
    """Translate llmft's settings into transformers', also saved with the final model.

    forced_bos: the target language's code, which a multilingual encoder-decoder writes first; None: what the model's own
    configuration says (BART's <s>), if anything. It is no part of a text, so it does not count in generation.max_new_tokens.
    """
    model = pretrained.model
    own = model.generation_config
    sampling = generation.temperature > 0
    config = GenerationConfig(
        **NEUTRAL,
        num_beams=generation.num_beams,
        do_sample=sampling,
        repetition_penalty=generation.repetition_penalty,
        no_repeat_ngram_size=generation.no_repeat_ngram_size,
        length_penalty=generation.length_penalty,
        # the model was trained to end at its own, too: Llama 3 names three, the tokenizer one of them
        eos_token_id=list(dict.fromkeys([*end_ids, *own_ends(own)])),
        pad_token_id=pad_id,
        **{name: getattr(own, name, None) for name in KEPT},
    )
    if pretrained.family is Family.encoder_decoder:
        config.decoder_start_token_id = model.config.decoder_start_token_id  # what training begins targets with
        config.forced_bos_token_id = own.forced_bos_token_id if forced_bos is None else forced_bos
    config.max_new_tokens = generation.max_new_tokens + (config.forced_bos_token_id is not None)
    if sampling:  # transformers warns about sampling settings that greedy decoding does not read
        config.update(temperature=generation.temperature, top_p=generation.top_p, top_k=generation.top_k or 0)
    return config


def generate(
    pretrained: Pretrained,
    sources: Sequence[Sequence[int]],
    config: GenerationConfig,
    batch_size: int,
    precision: torch.dtype,
) -> Iterator[tuple[int, Continuation]]:
    """Decode what follows each prompt (decoders), or what answers each source (encoder-decoders).

    Yields it with the source's place, as batches finish. Sources of similar length share a batch, longest first, so that
    little is padded and the largest batch comes first. Where memory runs out, batches are half as large from there on.
    Raises Stopped at the next token after a signal, DoesNotFit where a source does not even fit alone.
    """
    model = pretrained.model
    decode = answer if pretrained.family is Family.encoder_decoder else proceed
    order = sorted(range(len(sources)), key=lambda row: (-len(sources[row]), row))
    start = 0
    while start < len(order):
        rows = order[start : start + batch_size]
        random, training, own = rng_state(), model.training, model.generation_config
        model.eval()
        try:
            # what `config` leaves open is open: no setting of the model's own, nor a stop string, gets in
            model.generation_config = GenerationConfig()
            with autocast(model.device, precision), signals.deferred(), torch.no_grad():
                found = decode(model, [sources[row] for row in rows], config)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(rows) == 1:
                raise DoesNotFit(
                    f"out of memory while a text is written after one source of {len(sources[rows[0]])} tokens alone. Set "
                    "generation.num_beams or generation.max_new_tokens lower, a smaller task.max_source_tokens, or a smaller model."
                ) from error
            found = []
        finally:
            model.generation_config = own
            model.train(training)
        if found:
            yield from zip(rows, found, strict=True)
            start += len(rows)
        else:
            batch_size = len(rows) // 2
            release(model.device)
            set_rng_state(*random)


def proceed(model: PreTrainedModel, prompts: Sequence[Sequence[int]], config: GenerationConfig) -> list[Continuation]:
    """Decode what follows one batch of prompts, padded on the left so that all end at the same place."""
    width = max(len(prompt) for prompt in prompts)
    pad = config.pad_token_id
    tokens = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    return [until_end(ids, config) for ids in write(model, tokens, mask, config, width)]


def answer(model: PreTrainedModel, sources: Sequence[Sequence[int]], config: GenerationConfig) -> list[Continuation]:
    """Decode what an encoder-decoder writes after reading one batch of sources."""
    stream = stream_of([np.array(source, np.int32) for source in sources]).to(model.device)
    tokens, mask = pad_stream(stream, config.pad_token_id)
    given = 1 if config.forced_bos_token_id is None else 2  # the start token, and what has to follow it
    return [until_end(ids, config) for ids in write(model, tokens, mask, config, given)]


def write(model: PreTrainedModel, tokens: Tensor, mask: Tensor, config: GenerationConfig, given: int) -> list[list[int]]:
    """Run transformers' own decoding and return the rows without their `given` first tokens."""
    output = model.generate(  # type: ignore[operator]
        input_ids=tokens, attention_mask=mask, generation_config=config, stopping_criteria=[SignalCheck()]
    )
    return [row[given:].tolist() for row in output]


def until_end(ids: list[int], config: GenerationConfig) -> Continuation:
    """Cut a row at its first end token. What follows is padding, which may be the end token itself.

    An end token that BART's or Marian's configuration forces into the last place says nothing: the text was cut there.
    """
    limit = config.max_new_tokens - (config.forced_bos_token_id is not None)
    for position, token in enumerate(ids):
        if token in config.eos_token_id:
            cut = config.forced_eos_token_id is not None and position == limit - 1
            return Continuation(ids[:position], "length" if cut else "stop")
    return Continuation(ids, "length")

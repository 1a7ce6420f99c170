"""A Transformer from random weights: the encoder-decoder of Vaswani et al. 2017 (arXiv:1706.03762), its tokenizer trained first.

transformers calls the architecture Marian: sinusoidal positions, norms after each sublayer, ReLU, embeddings shared by source,
target and output and scaled by sqrt(d_model).
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import MarianConfig, MarianMTModel, PreTrainedTokenizerFast

from llmft.config.bind import check_options
from llmft.data.spool import locked
from llmft.errors import ConfigError, DataError
from llmft.runs import durable
from llmft.runs.cache import cache_dir

FORMAT = 1  # raised when `make_scratch` makes something else of the same settings
BYTES = 256  # so many tokens write every text

PAD, END = "<pad>", "</s>"


@dataclass(frozen=True)
class Transformer:
    """What a new Transformer measures: `layers` in encoder and decoder each, `ffn` the width between a layer's two products.

    `vocab_size` is the most that the tokenizer may have; few texts make fewer. The defaults of the paper: see model/transformer_base.
    """

    d_model: int
    layers: int
    heads: int
    ffn: int
    dropout: float = 0.1
    vocab_size: int = 37000
    max_positions: int = 512


def check_sizes(sizes: Mapping[str, Any]) -> Transformer:
    """Read the settings under model.scratch. Raises ConfigError with everything that is wrong."""
    check_options(Transformer, sizes, given=0, where="model.scratch")
    problems = []
    for name, value in sizes.items():
        if name == "dropout":
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
                problems.append(f"model.scratch.dropout={value}: expected a share from 0 to below 1.")
        elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
            problems.append(f"model.scratch.{name}={value}: expected a whole number above 0.")
    if not problems:
        found = Transformer(**sizes)
        if found.d_model % found.heads or found.d_model % 2:
            problems.append(
                f"model.scratch.d_model={found.d_model}: expected an even multiple of heads={found.heads}; each head gets an equal share."
            )
        if found.vocab_size < BYTES + 2:
            problems.append(
                f"model.scratch.vocab_size={found.vocab_size}: expected {BYTES + 2} or more: all bytes, {PAD} and {END}."
            )
    if problems:
        raise ConfigError(*problems)
    return found


def make_scratch(name: str, sizes: Mapping[str, Any], texts: Callable[[], Iterable[str]], seed: int, key: str) -> Path:
    """Return the folder of a new model with random weights and a tokenizer trained on `texts`; made once, then kept.

    key: what the texts are made of, such as a hash; with sizes and seed it decides whether a kept model is the one meant.
    Raises ConfigError for impossible sizes, DataError where there is no text.
    """
    checked = check_sizes(sizes)
    parts = json.dumps([FORMAT, name, sorted(vars(checked).items()), seed, key])
    folder = (
        cache_dir() / "models" / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}-{hashlib.sha256(parts.encode()).hexdigest()[:16]}"
    )
    with locked(folder.with_name(f"{folder.name}.lock")):
        if not folder.is_dir() or durable.verify(folder):
            durable.remove_leftovers(folder.parent)
            tokenizer = train_tokenizer(texts(), checked.vocab_size)
            model = random_transformer(checked, tokenizer, seed)
            with durable.replacement(folder) as new:
                model.save_pretrained(new)
                tokenizer.save_pretrained(new)
    return folder


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Learn byte-level BPE (Sennrich et al. 2016, arXiv:1508.07909): every text comes back as it was, none is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() == BYTES + 2:
        raise DataError("model.scratch: the training rows hold no text to train a tokenizer on. Check task.data.train.")
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 1)])
    # split_special_tokens: a text that happens to hold "</s>" does not end there
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, split_special_tokens=True, clean_up_tokenization_spaces=False
    )


def transformer_config(sizes: Transformer, tokenizer: PreTrainedTokenizerFast) -> MarianConfig:
    """Return transformers' configuration of the model; decoding starts from the pad token, as Marian does."""
    return MarianConfig(
        vocab_size=len(tokenizer),
        d_model=sizes.d_model,
        encoder_layers=sizes.layers,
        decoder_layers=sizes.layers,
        encoder_attention_heads=sizes.heads,
        decoder_attention_heads=sizes.heads,
        encoder_ffn_dim=sizes.ffn,
        decoder_ffn_dim=sizes.ffn,
        dropout=sizes.dropout,
        max_position_embeddings=sizes.max_positions,
        activation_function="relu",
        scale_embedding=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
        forced_eos_token_id=None,
    )


def random_transformer(sizes: Transformer, tokenizer: PreTrainedTokenizerFast, seed: int) -> MarianMTModel:
    """Return the model with weights drawn as the paper's own code draws them (tensor2tensor): Glorot, embeddings d_model^-0.5."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = MarianMTModel(transformer_config(sizes, tokenizer))
        for module in model.modules():
            if isinstance(module, torch.nn.Linear) and module is not model.lm_head:  # which is the embedding
                torch.nn.init.xavier_uniform_(module.weight)
        torch.nn.init.normal_(model.model.shared.weight, std=sizes.d_model**-0.5)
        model.model.shared.weight[tokenizer.pad_token_id] = 0
    model.generation_config.bad_words_ids = [[tokenizer.pad_token_id]]  # the start token, never to be written
    return model

"""Whether the ids that a model's files name are rows of its embedding: one that is not ends a run in the middle, or worse."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel

from llmft.errors import ModelError

NAMES = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "sep_token_id",
    "decoder_start_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "suppress_tokens",
    "begin_suppress_tokens",
    "bad_words_ids",
)


def settle_padding(config: PretrainedConfig, folder: Path) -> None:
    """Take a negative pad token for none, as the configurations that have it mean it. Raises ModelError for one that is too large.

    Before the model is built: its embedding keeps the row of the pad token at zero.
    """
    pad = getattr(config, "pad_token_id", None)
    if isinstance(pad, int) and pad < 0:
        config.pad_token_id = None
    rows = getattr(config, "vocab_size", None)
    if isinstance(pad, int) and isinstance(rows, int) and pad >= rows:
        raise ModelError(f"{folder / 'config.json'}: pad_token_id={pad}, the vocabulary has {rows} tokens. Correct it.")


def check_ids(tokenizer: Any, model: PreTrainedModel, folder: Path) -> None:
    """Hold the tokenizer's ids and those of both configurations against the embedding. Raises ModelError."""
    embedding: Any = model.get_input_embeddings()
    rows = embedding.weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, the embedding {rows} rows; they do not belong together"
        )
    token, highest = max(tokenizer.get_vocab().items(), key=lambda pair: pair[1], default=("", 0))
    if highest >= rows:
        raise ModelError(
            f"{folder}: the tokenizer's {token!r} has the id {highest}, the embedding {rows} rows; they do not belong together"
        )
    generation = model.generation_config if model.can_generate() else None
    for file, settings in (("config.json", model.config), ("generation_config.json", generation)):
        for name in NAMES:
            for number in numbers(getattr(settings, name, None)):
                if not isinstance(number, int) or not 0 <= number < rows:
                    raise ModelError(
                        f"{folder / file}: {name} names the token {number}, the embedding has {rows} rows. Correct it, or take it out."
                    )


def end_ids(settings: Any) -> list[int]:
    """Return the tokens at which a generation configuration ends a text: none, one, or several (Llama 3)."""
    return list(numbers(getattr(settings, "eos_token_id", None)))


def numbers(value: Any) -> Iterator[Any]:
    """Return what stands in a value that may be nothing, one, or lists of lists."""
    if isinstance(value, list | tuple):
        for inner in value:
            yield from numbers(inner)
    elif value is not None:
        yield value

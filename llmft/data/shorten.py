"""Cutting a text that is too long, in whole characters, and counting what was cut."""

from collections.abc import Callable
from typing import Any

from llmft.config.schema import Truncation
from llmft.errors import DataError

LETTERS = 8
"""Characters a token, on average, of texts that are hardly ever longer: what has more is cut, and need not be counted first."""


def may_fit(text: str, limit: int | None) -> bool:
    """Whether to tokenise a text ahead for the case that it has no more than `limit` tokens."""
    return limit is None or len(text) <= LETTERS * limit


def must_be_counted(text: str, limit: int | None) -> bool:
    """Whether only its tokens tell if a text has more than `limit` of them."""
    return limit is not None and len(text.encode()) >= limit  # a token is at least a byte


def shorten(
    tokenizer: Any,
    text: str,
    limit: int | None,
    truncation: Truncation,
    where: str,
    ids_of: Callable[[str], list[int]] | None = None,
) -> tuple[str, int]:
    """Cut a source text to `limit` tokens; return it and how many tokens were cut.

    ids_of: the tokenizer without special tokens, where it may have been asked ahead.

    Raises DataError instead where task.truncation is error.
    """
    if limit is None or not must_be_counted(text, limit):
        return text, 0
    if ids_of is not None and may_fit(text, limit) and len(ids_of(text)) <= limit:
        return text, 0
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast)
    count = len(encoded.input_ids)
    if count <= limit:
        return text, 0
    if truncation is Truncation.error:
        raise DataError(
            f"{where}: the source has {count} tokens, task.max_source_tokens allows {limit}. Raise it or set task.truncation=end."
        )
    for kept in range(limit, 0, -1):
        part = part_of(tokenizer, text, encoded, kept, truncation)
        size = len(tokenizer(part, add_special_tokens=False).input_ids)
        if size <= limit:  # a character that was cut through comes back whole, and may be several tokens
            return part, count - size
    return "", count


def part_of(tokenizer: Any, text: str, encoded: Any, kept: int, truncation: Truncation) -> str:
    """Return what the `kept` last or first tokens stand for, in whole characters."""
    cut_start = truncation is Truncation.start
    if not tokenizer.is_fast:
        return tokenizer.decode(encoded.input_ids[-kept:] if cut_start else encoded.input_ids[:kept])
    offsets = encoded.offset_mapping
    return text[offsets[-kept][0] :] if cut_start else text[: offsets[kept - 1][1]]

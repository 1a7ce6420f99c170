"""Cutting a text that is too long, in whole characters, and counting what was cut."""

from typing import Any

from llmft.config.schema import Truncation
from llmft.errors import DataError


def shorten(tokenizer: Any, text: str, limit: int | None, truncation: Truncation, where: str) -> tuple[str, int]:
    """Cut a source text to `limit` tokens; return it and how many tokens were cut.

    Raises DataError instead where task.truncation is error.
    """
    if limit is None or len(text.encode()) < limit:  # a token is at least a byte
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

"""Long texts in pieces that a model can read."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Tokens `start`:`stop` of a text; those from `new` on stood in no window before."""

    start: int
    stop: int
    new: int


def cut_windows(count: int, length: int, overlap: int) -> Iterator[Window]:
    """Yield windows of `length` tokens over `count`, each with `overlap` tokens of the one before; the last may be shorter."""
    assert 0 <= overlap < length, f"windows of {length} tokens with an overlap of {overlap}"
    start = stop = 0
    while stop < count:
        new, stop = stop, min(start + length, count)
        yield Window(start, stop, new)
        start += length - overlap

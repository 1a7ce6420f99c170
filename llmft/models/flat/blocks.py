"""Which queries of documents laid end to end meet which keys: blocks of queries with the keys up to their last one.

Most of what a query must not see is never computed. Blocks at a document's end are shown keys behind it, at a weight of 0: where those
are not finite, what is read is not, either.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from llmft.models.filling import rounded_up

# N flat tokens, Q of them that ask, R queries of a block, S keys that it is shown

ROWS, MOST_ROWS = 96, 144
"""Queries of a document's blocks, and of its last one, at most. Attention of one layer over documents of 150 to 390 tokens, 640 at once,
forward and backward: 8.4 ms in bf16 and 10.3 in fp32, in blocks of 128 8.3 and 11.4, of 64 9.0 and 10.0, of 192 8.8 and 12.5."""
MOST_SCORES = 1 << 19
"""Scores that a head has in a block, about: blocks of documents of more than 4,096 tokens have fewer queries."""
STEP, FEW_STEP = 16, 64
"""Numbers of queries and keys are multiples of it; keys of the second where only some tokens ask. In 16 bits each size of a product
takes a program of its own (see `llmft.models.filling`)."""


class Block(NamedTuple):
    """Queries at `rows` of those that ask, and the keys (S) at `keys` of the flat tokens, some of them of the document behind.

    `hidden` (R, at most S) is added to the scores of the last of the keys: minus infinity for what a query must not see. It has more
    rows than there are queries, up to a multiple of `STEP`.
    """

    rows: slice
    keys: tuple[slice, ...]
    hidden: Tensor

    @property
    def shown(self) -> int:
        """How many keys there are."""
        return tokens_of(self.keys)


def chains_of(lengths: Sequence[int], parents: Sequence[int] | None) -> list[tuple[slice, ...]]:
    """Return where the tokens of each piece are, those of the pieces before it first."""
    found: list[tuple[slice, ...]] = []
    start = 0
    for place, length in enumerate(lengths):
        before = () if parents is None or parents[place] < 0 else found[parents[place]]
        found.append((*before, slice(start, start + length)))
        start += length
    return found


def blocks_of(
    lengths: Sequence[int], window: int | None, rows: Sequence[int] | None = None, parents: Sequence[int] | None = None
) -> list[Block]:
    """Return the blocks of documents, or of pieces of them. With a `window` W a token sees the W tokens up to and with itself.

    rows: the flat tokens that ask, in order; None: all.
    """
    found, first = [], 0
    for keys in chains_of(lengths, parents):
        own, before = keys[-1], tokens_of(keys[:-1])
        asking = (
            range(own.start, own.stop) if rows is None else rows[bisect_left(rows, own.start) : bisect_left(rows, own.stop)]
        )
        for part in parts_of(asking, tokens_of(keys)):
            places = [row - own.start + before for row in part]
            found.append(block_of(slice(first, first + len(part)), places, keys, window, STEP if rows is None else FEW_STEP))
            first += len(part)
    return found


def parts_of(rows: Sequence[int], keys: int) -> Iterator[Sequence[int]]:
    """Cut rows of a document with so many keys into parts of ROWS, the last one of up to MOST_ROWS; smaller ones of a long document."""
    size = max(STEP, min(ROWS, MOST_SCORES // keys // STEP * STEP)) if keys else ROWS
    start = 0
    while start < len(rows):
        stop = len(rows) if len(rows) - start <= size * MOST_ROWS // ROWS else start + size
        yield rows[start:stop]
        start = stop


def block_of(rows: slice, places: Sequence[int], chain: Sequence[slice], window: int | None, step: int) -> Block:
    """Return the block of queries at these places of a document, whose tokens are at `chain`; keys are a multiple of `step`."""
    start = 0 if window is None else max(0, places[0] - window + 1)
    shown = rounded_up(places[-1] + 1 - start, step)
    asking = torch.tensor([*places, *[places[-1]] * (rounded_up(len(places), STEP) - len(places))])
    age = asking[:, None] - torch.arange(start, start + shown)
    hidden = (age < 0) if window is None else (age < 0) | (age >= window)
    seen_by_all = int(hidden.any(0).int().argmax()) if hidden.any() else shown
    hidden = hidden[:, seen_by_all:]
    # added, as filling masked places in takes ten times as long
    return Block(rows, cut_out(chain, start, start + shown), torch.zeros(hidden.shape).masked_fill_(hidden, float("-inf")))


def cut_out(chain: Sequence[slice], start: int, stop: int) -> tuple[slice, ...]:
    """Return where the tokens of a chain from `start` to `stop` are; the last slice goes on behind the chain if it has to."""
    found = []
    for place, span in enumerate(chain):
        length = span.stop - span.start
        last = stop if place == len(chain) - 1 else min(stop, length)
        if start < last:
            found.append(slice(span.start + max(start, 0), span.start + last))
        start, stop = start - length, stop - length
    return tuple(found)


def tokens_of(places: Sequence[slice]) -> int:
    """Return how many tokens there are at these places."""
    return sum(place.stop - place.start for place in places)

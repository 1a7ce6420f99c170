"""Causal attention over documents laid end to end, forward and backward: softmax(QK^T)V for each of them alone.

As matrix products of blocks of queries with the keys up to their last one, so that most of what a query must not see is never
computed; scores stay in the processor's caches. The query heads that share keys stand below each other in one product. torch's own
kernel for processors takes about twice as long. Blocks at a document's end are shown keys behind it, at a weight of 0: where those are
not finite, it is not, either.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from llmft.hardware.arena import Arena, empty

# N flat tokens, Q of them that ask, H query heads, K key/value heads of G query heads each, E head width
# R queries of a block, S keys that it is shown

ROWS, MOST_ROWS = 128, 192
"""Queries of a document's blocks, and of its last one, at most. In bf16 386 tokens took 4.9 ms in blocks of 128, 4.6 in blocks of 192, and
6.1 in blocks of 64."""
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


class Held(NamedTuple):
    """What the backward pass reads: weights are computed again."""

    q_QHE: Tensor
    k_NKE: Tensor
    v_NKE: Tensor


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
    asking = torch.tensor([*places, *[places[-1]] * (rounded_up(len(places)) - len(places))])
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


def rounded_up(count: int, step: int = STEP) -> int:
    """Return the multiple of `step` that is not less."""
    return -(-count // step) * step


def attend(
    q_QHE: Tensor, k_NKE: Tensor, v_NKE: Tensor, blocks: Sequence[Block], arena: Arena | None = None
) -> tuple[Tensor, Held]:
    """Return what each query reads (Q, H, E), in an arena if there is one, and what the backward pass needs. Queries come scaled."""
    out_QHE = empty(arena, q_QHE, *q_QHE.shape)
    k_KNE, v_KNE = heads_first(k_NKE), heads_first(v_NKE)
    room = Room(q_QHE, blocks)
    for block in blocks:
        weights_KRS = weights_of(grouped(q_QHE, block, len(k_KNE)), at(k_KNE, block), block, room)
        put(out_QHE, block, torch.bmm(weights_KRS, at(v_KNE, block)))
    return out_QHE, Held(q_QHE, k_NKE, v_NKE)


def attend_backward(gradient_QHE: Tensor, held: Held, blocks: Sequence[Block]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the scaled q, of k and of v."""
    q_QHE, k_NKE, v_NKE = held
    k_KNE, v_KNE = heads_first(k_NKE), heads_first(v_NKE)
    wide = torch.promote_types(k_NKE.dtype, torch.float32)
    dq_QHE, dk_KNE, dv_KNE = torch.empty_like(q_QHE), torch.zeros_like(k_KNE, dtype=wide), torch.zeros_like(v_KNE, dtype=wide)
    room = Room(q_QHE, blocks)
    for block in blocks:
        q_KRE, gradient_KRE = grouped(q_QHE, block, len(k_KNE)), grouped(gradient_QHE, block, len(k_KNE))
        k_KSE, v_KSE = at(k_KNE, block), at(v_KNE, block)
        weights_KRS = weights_of(q_KRE, k_KSE, block, room)
        add_at(dv_KNE, block, torch.bmm(weights_KRS.transpose(1, 2), gradient_KRE))
        dweights_KRS = torch.bmm(gradient_KRE, v_KSE.transpose(1, 2), out=room.own(0, weights_KRS.shape))
        dscores_KRS = room.last(weights_KRS.shape)
        torch.ops.aten._softmax_backward_data(dweights_KRS, weights_KRS, -1, q_QHE.dtype, grad_input=dscores_KRS)
        put(dq_QHE, block, torch.bmm(dscores_KRS, k_KSE))
        add_at(dk_KNE, block, torch.bmm(dscores_KRS.transpose(1, 2), q_KRE))
    dk_NKE, dv_NKE = (each[:, : len(k_NKE)].transpose(0, 1) for each in (dk_KNE, dv_KNE))
    return dq_QHE, dk_NKE.to(k_NKE.dtype), dv_NKE.to(v_NKE.dtype)


class Room:
    """Memory for what a block has of all scores, which the next one takes again: twice in the format of the scores, three times in its own."""

    def __init__(self, like: Tensor, blocks: Sequence[Block]) -> None:
        size = max((like.shape[1] * len(block.hidden) * block.shown for block in blocks), default=0)
        self._wide = like.new_empty(2, size, dtype=torch.promote_types(like.dtype, torch.float32))
        self._own = self._wide if like.dtype == self._wide.dtype else like.new_empty(2, size)
        self._last = like.new_empty(size)

    def wide(self, place: int, shape: Sequence[int]) -> Tensor:
        """Return one of the two tensors for scores, of any numbers."""
        return self._wide[place, : torch.Size(shape).numel()].view(*shape)

    def own(self, place: int, shape: Sequence[int]) -> Tensor:
        """Return one of the two others; where they need no other format, they are the same ones."""
        return self._own[place, : torch.Size(shape).numel()].view(*shape)

    def last(self, shape: Sequence[int]) -> Tensor:
        """Return the third."""
        return self._last[: torch.Size(shape).numel()].view(*shape)


def weights_of(q_KRE: Tensor, k_KSE: Tensor, block: Block, room: Room) -> Tensor:
    """Return softmax(QK^T) of what is not hidden (K, GR, S).

    Scores are float32: rounded to 16 bits, those around 70 were off by up to a quarter, and what is read by 8 %.
    """
    shape = (*q_KRE.shape[:2], k_KSE.shape[1])
    scores_KRS = room.wide(0, shape)
    torch.bmm(q_KRE.to(scores_KRS.dtype), k_KSE.to(scores_KRS.dtype).transpose(1, 2), out=scores_KRS)
    last = scores_KRS.unflatten(1, (-1, len(block.hidden)))[..., shape[2] - block.hidden.shape[1] :]
    last += block.hidden
    weights_KRS = torch.softmax(scores_KRS, -1, out=room.wide(1, shape))
    return weights_KRS if weights_KRS.dtype == q_KRE.dtype else room.own(1, shape).copy_(weights_KRS)


def heads_first(x_NKE: Tensor) -> Tensor:
    """Lay the tokens of each head together (K, N, E), with zeros behind them for blocks that are shown more than there is."""
    return F.pad(x_NKE.transpose(0, 1), (0, 0, 0, FEW_STEP))


def at(x_KNE: Tensor, block: Block) -> Tensor:
    """Return what is at a block's keys (K, S, E)."""
    parts = [x_KNE[:, place] for place in block.keys]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def add_at(x_KNE: Tensor, block: Block, part_KSE: Tensor) -> None:
    """Add to what is at a block's keys."""
    start = 0
    for place in block.keys:
        stop = start + place.stop - place.start
        x_KNE[:, place] += part_KSE[:, start:stop]
        start = stop


def grouped(x_QHE: Tensor, block: Block, num_key_heads: int) -> Tensor:
    """Return a block's queries, those of heads that share keys below each other (K, GR, E), zeros behind those of each head."""
    x_KGRE = x_QHE[block.rows].unflatten(1, (num_key_heads, -1)).permute(1, 2, 0, 3)
    return F.pad(x_KGRE, (0, 0, 0, len(block.hidden) - x_KGRE.shape[2])).flatten(1, 2)


def put(x_QHE: Tensor, block: Block, part_KRE: Tensor) -> None:
    """Write what `grouped` would read there."""
    x_KGRE = x_QHE[block.rows].unflatten(1, (len(part_KRE), -1)).permute(1, 2, 0, 3)
    x_KGRE.copy_(part_KRE.unflatten(1, (-1, len(block.hidden)))[:, :, : x_KGRE.shape[2]])

"""Causal attention over documents laid end to end, forward and backward: softmax(QK^T)V for each of them alone.

As matrix products of blocks of queries with the keys that they are shown, few enough at once that their scores stay in the processor's
caches. The query heads that share keys stand below each other in one product. torch's own kernel for processors takes about twice as
long.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from llmft.hardware.arena import Arena, empty
from llmft.models.flat.blocks import FEW_STEP, Block, tokens_of
from llmft.models.layout import layout_of

# N flat tokens, Q of them that ask, H query heads, K key/value heads of G query heads each, E head width
# R queries of a block, S keys that it is shown, P rows of all blocks: of each block, K heads of G heads of R queries


class Held(NamedTuple):
    """What the backward pass reads: weights are computed again."""

    q_PE: Tensor
    k_KNE: Tensor
    v_KNE: Tensor


class Laid(NamedTuple):
    """A block's rows (K, GR) among all, and room for what it has of scores (K, GR, S), which all blocks share.

    scores: float32 or wider; last: those of them that `Block.hidden` is added to. The others are in the format that is read.
    """

    rows: slice
    scores: Tensor
    last: Tensor
    wide: Tensor
    weights: Tensor
    dweights: Tensor
    dscores: Tensor

    def of(self, x_PE: Tensor) -> Tensor:
        """Return a block's rows (K, GR, E), as a view."""
        return x_PE[self.rows].view(*self.scores.shape[:2], x_PE.shape[1])


class Causal:
    """Attention of one batch's documents, for layers with as many heads. Queries come scaled."""

    def __init__(self, blocks: Sequence[Block], heads: int, key_heads: int, like: Tensor) -> None:
        self._blocks = blocks
        self._layout = layout_of(rows_of(block, heads, key_heads) for block in blocks)
        self._laid = laid_of(blocks, heads, key_heads, like)

    def forward(self, q_QHE: Tensor, k_NKE: Tensor, v_NKE: Tensor, arena: Arena | None = None) -> tuple[Tensor, Held]:
        """Return what each query reads (Q, H, E) and what the backward pass needs, both in an arena if there is one."""
        held = Held(self._layout.lay_out(q_QHE.flatten(0, 1), arena), heads_first(k_NKE, arena), heads_first(v_NKE, arena))
        out_PE = torch.empty_like(held.q_PE)
        q_wide, k_wide = widened(held.q_PE), widened(held.k_KNE)
        for block, laid in zip(self._blocks, self._laid, strict=True):
            torch.bmm(weights_of(q_wide, k_wide, block, laid), at(held.v_KNE, block), out=laid.of(out_PE))
        return self._layout.flat(out_PE, arena).view(q_QHE.shape), held

    def backward(self, gradient_QHE: Tensor, held: Held) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of the scaled q, of k and of v."""
        q_PE, k_KNE, v_KNE = held
        gradient_PE = self._layout.lay_out_gradient(gradient_QHE.flatten(0, 1))
        dq_PE, q_wide, k_wide = torch.empty_like(q_PE), widened(q_PE), widened(k_KNE)
        dk_KNE, dv_KNE = torch.zeros_like(k_KNE, dtype=k_wide.dtype), torch.zeros_like(v_KNE, dtype=k_wide.dtype)
        for block, laid in zip(self._blocks, self._laid, strict=True):
            weights_KRS, gradient_KRE = weights_of(q_wide, k_wide, block, laid), laid.of(gradient_PE)
            add_at(dv_KNE, block, torch.bmm(weights_KRS.transpose(1, 2), gradient_KRE))
            torch.bmm(gradient_KRE, at(v_KNE, block).transpose(1, 2), out=laid.dweights)
            torch.ops.aten._softmax_backward_data(laid.dweights, weights_KRS, -1, q_PE.dtype, grad_input=laid.dscores)
            torch.bmm(laid.dscores, at(k_KNE, block), out=laid.of(dq_PE))
            add_at(dk_KNE, block, torch.bmm(laid.dscores.transpose(1, 2), laid.of(q_PE)))
        dk_NKE, dv_NKE = (each[:, :-FEW_STEP].transpose(0, 1).to(k_KNE.dtype) for each in (dk_KNE, dv_KNE))
        return self._layout.flat(dq_PE).view(gradient_QHE.shape), dk_NKE, dv_NKE


def rows_of(block: Block, heads: int, key_heads: int) -> tuple[Tensor, Tensor]:
    """Return which head of which query (QH) a block's rows are (K, G, R), and which of them only fill up (R)."""
    query_R = torch.arange(block.rows.start, block.rows.start + len(block.hidden))
    head_KG1 = torch.arange(heads).view(key_heads, -1, 1)
    return query_R.clamp(max=block.rows.stop - 1) * heads + head_KG1, query_R >= block.rows.stop


def laid_of(blocks: Sequence[Block], heads: int, key_heads: int, like: Tensor) -> list[Laid]:
    """Return where blocks are among all rows, and room that they share: two tensors of scores as wide as those are, and three as `like`."""
    shapes = [(key_heads, heads // key_heads * len(block.hidden), block.shown) for block in blocks]
    size = max((torch.Size(shape).numel() for shape in shapes), default=0)
    wide = like.new_empty(2, size, dtype=torch.promote_types(like.dtype, torch.float32))
    own = wide if like.dtype == wide.dtype else like.new_empty(2, size)  # the same room, where no other format is needed
    last = like.new_empty(size)
    found, start = [], 0
    for block, shape in zip(blocks, shapes, strict=True):
        stop = start + heads * len(block.hidden)
        scores, *others = (each[: torch.Size(shape).numel()].view(shape) for each in (wide[0], wide[1], own[1], own[0], last))
        hidden = scores.unflatten(1, (-1, len(block.hidden)))[..., block.shown - block.hidden.shape[1] :]
        found.append(Laid(slice(start, stop), scores, hidden, *others))
        start = stop
    return found


def widened(x: Tensor) -> Tensor:
    """Return a tensor in the format of scores: rounded to 16 bits, those around 70 were off by up to a quarter, and what is read by 8 %."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def weights_of(q_PE: Tensor, k_KNE: Tensor, block: Block, laid: Laid) -> Tensor:
    """Return softmax(QK^T) of what is not hidden (K, GR, S), in the room that is laid out for it."""
    torch.bmm(laid.of(q_PE), at(k_KNE, block).transpose(1, 2), out=laid.scores)
    laid.last.add_(block.hidden)
    torch.softmax(laid.scores, -1, out=laid.wide)
    return laid.wide if laid.wide.dtype == laid.weights.dtype else laid.weights.copy_(laid.wide)


def heads_first(x_NKE: Tensor, arena: Arena | None) -> Tensor:
    """Lay the tokens of each head together (K, N, E), with zeros behind them for blocks that are shown more than there is."""
    count, heads, width = x_NKE.shape
    x_KNE = empty(arena, x_NKE, heads, count + FEW_STEP, width)
    x_KNE[:, :count] = x_NKE.transpose(0, 1)
    x_KNE[:, count:] = 0
    return x_KNE


def at(x_KNE: Tensor, block: Block) -> Tensor:
    """Return what is at a block's keys (K, S, E)."""
    parts = [x_KNE[:, place] for place in block.keys]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def add_at(x_KNE: Tensor, block: Block, part_KSE: Tensor) -> None:
    """Add to what is at a block's keys."""
    start = 0
    for place in block.keys:
        stop = start + tokens_of((place,))
        x_KNE[:, place] += part_KSE[:, start:stop]
        start = stop

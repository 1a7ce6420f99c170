"""Embedding tables whose gradient is written where tokens were read, into a tensor that is kept from step to step.

torch makes one as large as the table each time, all but a few thousand of whose rows are zeros: of a small encoder, whose table is
half of it, that is a twentieth of a step.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

# V rows of the table, N tokens, U different ones among them, D width


class RowGradient:
    """The gradient of a table, zero but in the rows that were read since it was last cleared.

    What reads gradients may scale them, as clipping does, and must write no row that is zero.
    """

    def __init__(self, weight_VD: Tensor):
        self._gradient_VD = torch.zeros_like(weight_VD)
        self._written_V = torch.zeros(len(weight_VD), dtype=torch.bool)

    def add(self, weight_VD: Tensor, rows_U: Tensor, gradient_UD: Tensor) -> None:
        """Add to some rows of the table's gradient; a table that has none, at the beginning of a step, gets this one."""
        if weight_VD.grad is None:
            self._gradient_VD[self._written_V] = 0
            self._written_V.zero_()
            weight_VD.grad = self._gradient_VD
        self._written_V[rows_U] = True
        weight_VD.grad.index_add_(0, rows_U, gradient_UD.to(weight_VD.dtype))


class Lookup(Function):
    """Rows of a table; backward adds to the table's `grad` by itself, and tells autograd of none."""

    @staticmethod
    def forward(ctx: Any, weight_VD: Tensor, ids: Tensor, padding: int | None, gradient: RowGradient) -> Tensor:
        ctx.save_for_backward(weight_VD, ids)
        ctx.padding, ctx.gradient = padding, gradient
        return F.embedding(ids, weight_VD)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        weight_VD, ids = ctx.saved_tensors
        rows_U, places = ids.flatten().unique(return_inverse=True)
        gradient_UD = torch.ops.aten.embedding_dense_backward(gradient.flatten(0, -2), places, len(rows_U), -1, False)
        if ctx.padding is not None:  # a row that torch never trains
            gradient_UD[rows_U == ctx.padding] = 0
        ctx.gradient.add(weight_VD, rows_U, gradient_UD)
        return None, None, None, None


def looked_up(table: nn.Embedding, ids: Tensor) -> Tensor:
    """Return rows of a table that is trained and that nothing else reads in the same pass."""
    kept = getattr(table, "row_gradient", None)
    if kept is None:
        kept = table.row_gradient = RowGradient(table.weight)  # type: ignore[assignment]
    return Lookup.apply(table.weight, ids, table.padding_idx, kept)

"""Embedding tables whose gradient is written where tokens were read, on a processor.

torch makes one as large as the table each time, all but a few thousand of whose rows are zeros, and adds it to what else the
table's gradient is made of: of an encoder-decoder of T5-small's size that is a tenth of a step.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from transformers import PreTrainedModel

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


class SharedGradient:
    """The gradient of a table that is the output embedding, too: the scores' part, which is there first, takes in the rows."""

    def add(self, weight_VD: Tensor, rows_U: Tensor, gradient_UD: Tensor) -> None:
        """Add to some rows of the table's gradient."""
        if weight_VD.grad is None:  # nothing was scored
            weight_VD.grad = torch.zeros_like(weight_VD)
        weight_VD.grad.index_add_(0, rows_U, gradient_UD.to(weight_VD.dtype))


class Lookup(Function):
    """Rows of a table; backward adds to the table's `grad` by itself.

    The table is no input that autograd knows, so that what else its gradient is made of waits for nothing. `asked` is one, or
    there would be no backward pass; its gradient is none.
    """

    @staticmethod
    def forward(ctx: Any, asked: Tensor, table: nn.Embedding, ids: Tensor, gradient: RowGradient | SharedGradient) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.table, ctx.gradient = table, gradient
        return F.embedding(ids, table.weight.detach())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        (ids,) = ctx.saved_tensors
        rows_U, places = ids.flatten().unique(return_inverse=True)
        gradient_UD = torch.ops.aten.embedding_dense_backward(gradient.flatten(0, -2), places, len(rows_U), -1, False)
        if ctx.table.padding_idx is not None:  # a row that torch never trains by what was read
            gradient_UD[rows_U == ctx.table.padding_idx] = 0
        ctx.gradient.add(ctx.table.weight, rows_U, gradient_UD)
        return None, None, None, None


def writable(table: nn.Module) -> bool:
    """Tell whether the gradient of a table can be written here: a plain one, trained, on a processor, in a pass that has gradients."""
    if type(table) is not nn.Embedding or table.max_norm or table.scale_grad_by_freq or table.sparse:
        return False
    weight = table.weight
    return torch.is_grad_enabled() and weight.requires_grad and weight.is_leaf and not weight.is_cuda


def looked_up(model: PreTrainedModel, table: Any, ids: Tensor) -> Tensor:
    """Return rows of a table, which is read once in a pass, but for the scores that it may be for as well."""
    rows: Tensor = rows_of(model, table, ids) if writable(table) else table(ids)
    return rows


def rows_of(model: PreTrainedModel, table: Any, ids: Tensor) -> Tensor:
    """Return the same of a table that is `writable`."""
    kept = getattr(table, "row_gradient", None)
    if kept is None:
        output = model.get_output_embeddings()
        shared = output is not None and output.weight is table.weight
        kept = table.row_gradient = SharedGradient() if shared else RowGradient(table.weight)
    return Lookup.apply(table.weight.new_zeros((), requires_grad=True), table, ids, kept)

"""Linear layers that read the same input, with or without low-rank updates: y = xW^T + b + s(dropout(x)A^T)B^T, forward and backward.

Written out because autograd would make a tensor for every term: here products are added up where the first one stands, the
updates of all layers share one product with their input, and what is frozen has no gradient. Weights may be kept in a wider
format than the input; they are read in the input's. Packed ones are in bfloat16, and for inputs in it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from llmft.hardware.arena import Arena, empty
from llmft.models.dropout import Mask, draw
from llmft.models.packed import product
from llmft.models.rounding import like_marked, narrow

# N flat tokens, I and O input and output width of a layer, R rank of its update


class Update(NamedTuple):
    """A low-rank update s(dropout(x)A^T)B^T (Hu et al. 2021, arXiv:2106.09685): `down` is A (R, I), `up` is B (O, R)."""

    down: Tensor
    up: Tensor
    scale: float
    dropout: float = 0.0


class Low(NamedTuple):
    """What the backward pass of updates reads: dropout(x)A^T (N, R) of all of them side by side, and the parts of dropout's `Mask`.

    None without updates, and without dropout.
    """

    product_NR: Tensor | None = None
    drawn_NI: Tensor | None = None
    least_N1: Tensor | None = None

    def masked(self, x_NI: Tensor) -> Tensor:
        """Return x, or what dropout leaves of it, which is not yet divided by its share."""
        if self.drawn_NI is None or self.least_N1 is None:
            return x_NI
        return Mask(self.drawn_NI, self.least_N1).ones(x_NI).mul_(x_NI)


@dataclass(frozen=True)
class Projection:
    """A linear layer: weight (O, I), which may be `packed` where there is no update; bias (O) or None, update or None."""

    weight: Tensor
    bias: Tensor | None = None
    update: Update | None = None

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """All that may be trained, in a fixed order."""
        return self.weight, self.bias, *(self.update[:2] if self.update else (None, None))


def projection_of(layer: Any) -> Projection | None:
    """Return what a linear layer computes, or one with PEFT's LoRA around it (GPT-2's Conv1D, too); None for any other layer.

    None, too, where the update is no plain one: more than one adapter, a bias of its own, or a variant (DoRA and the like);
    and for dropout on a GPU, whose random numbers are others.
    """
    if type(layer) is nn.Linear:
        return Projection(layer.weight, layer.bias)
    base: Any = getattr(layer, "base_layer", None)
    if type(base) not in (nn.Linear, Conv1D) or not hasattr(layer, "lora_A"):
        return None
    weight = base.weight if type(base) is nn.Linear else base.weight.t()
    if layer.merged:  # the update is in the weight
        return Projection(weight, base.bias)
    if layer.disable_adapters or list(layer.lora_A) != ["default"] or layer.lora_variant:
        return None
    down, up, dropout = layer.lora_A["default"], layer.lora_B["default"], layer.lora_dropout["default"]
    rate = dropout.p if type(dropout) is nn.Dropout and dropout.training else 0.0
    if down.bias is not None or up.bias is not None or type(dropout) not in (nn.Identity, nn.Dropout):
        return None
    if rate and weight.is_cuda:
        return None
    return Projection(weight, base.bias, Update(down.weight, up.weight, layer.scaling["default"], rate))


def tensors_of(projections: Iterable[Projection]) -> list[Tensor | None]:
    """Return the tensors of projections, in the order that the halves of a layer take them."""
    return [tensor for each in projections for tensor in each.tensors]


def ungrouped(projections: Sequence[Projection], tensors: Sequence[Tensor | None]) -> list[Projection]:
    """Put tensors, four for each projection as in `tensors`, in the projections' places."""
    found = []
    for place, like in enumerate(projections):
        weight, bias, down, up = tensors[4 * place : 4 * place + 4]
        assert weight is not None
        update = None
        if like.update is not None:
            assert down is not None
            assert up is not None
            update = like.update._replace(down=down, up=up)
        weight = like_marked(weight, like.weight)
        bias = None if bias is None or like.bias is None else like_marked(bias, like.bias)
        found.append(Projection(weight, bias, update))
    return found


def project(
    x_NI: Tensor,
    projections: Sequence[Projection],
    added_NO: Tensor | None = None,
    factor: float = 1,
    arena: Arena | None = None,
    kept: Sequence[bool] | None = None,
) -> tuple[list[Tensor], Low]:
    """Return the layers' outputs, and what the backward pass reads of their updates.

    Dropout's mask is one for all updates that read the input. For where autograd builds no graph. added_NO: what a single layer's
    output is added to, a residual. factor: what x is multiplied by, at no cost here: a dropout's 1/(1-p). arena: where that
    product lies, and the outputs that are `kept`; None: all of them.
    """
    dtype = x_NI.dtype
    downs = [each.update.down for each in projections if each.update is not None]
    low, share = Low(), 1.0
    if downs:
        rate = rate_of(projections)
        mask = draw(x_NI.shape, rate, arena) if rate else (None, None)
        low, share = Low(None, *mask), 1 / (1 - rate)
        down_RI = side_by_side(downs, dtype)
        low_NR = torch.mm(low.masked(x_NI), down_RI.t(), out=empty(arena, x_NI, len(x_NI), len(down_RI)))
        low = low._replace(product_NR=low_NR)
    outputs, start = [], 0
    for place, each in enumerate(projections):
        if each.weight.is_mkldnn:
            assert each.update is None
            assert factor == 1
            outputs.append(product(x_NI, each.weight, each.bias))
            continue
        weight = narrow(each.weight, dtype)
        out_NO = empty(arena if kept is None or kept[place] else None, x_NI, len(x_NI), len(weight))
        if each.update is not None:
            # the smallest term first: what is already rounded to 16 bits would not take it in
            stop = start + each.update.down.shape[0]
            up_RO, scale = each.update.up.to(dtype).t(), each.update.scale * share * factor
            torch.addmm(out_NO, low_NR[:, start:stop], up_RO, beta=0, alpha=scale, out=out_NO)
            start = stop
        if each.update is None and each.bias is not None:
            torch.addmm(narrow(each.bias, dtype), x_NI, weight.t(), alpha=factor, out=out_NO)
        else:
            torch.addmm(out_NO, x_NI, weight.t(), beta=1 if each.update else 0, alpha=factor, out=out_NO)
            if each.bias is not None:
                out_NO += narrow(each.bias, dtype)
        outputs.append(out_NO)
    if added_NO is not None:
        outputs[0] += added_NO
    return outputs, low


def rate_of(projections: Sequence[Projection]) -> float:
    """Return the share of their input that updates do not see, which is the same for all."""
    (rate,) = {each.update.dropout for each in projections if each.update is not None}
    return rate


def side_by_side(downs: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return the A of several updates as one matrix (sum of R, I)."""
    return downs[0].to(dtype) if len(downs) == 1 else torch.cat([down.to(dtype) for down in downs])


def project_backward(
    x_NI: Tensor,
    projections: Sequence[Projection],
    low: Low,
    gradients: Sequence[Tensor],
    added_NI: Tensor | None = None,
    factor: float = 1,
) -> tuple[Tensor, list[Tensor | None]]:
    """Return the gradient of the layers' input, and those of their tensors in the order of `Projection.tensors`.

    added_NI: what else the input's gradient is made of, past the layers. factor: as `project` was given it.
    """
    scaled = gradients if factor == 1 else [each * factor for each in gradients]
    dx_NI, of_updates = updates_backward(x_NI, projections, low, scaled)
    found: list[Tensor | None] = []
    for each, incoming_NO, gradient_NO, of_update in zip(projections, gradients, scaled, of_updates, strict=True):
        weight = narrow(each.weight, x_NI.dtype)
        dx_NI = gradient_NO @ weight if dx_NI is None else dx_NI.addmm_(gradient_NO, weight)
        found.append(gradient_NO.t() @ x_NI if each.weight.requires_grad else None)
        found.append(incoming_NO.sum(0) if each.bias is not None and each.bias.requires_grad else None)
        found += of_update
    assert dx_NI is not None
    if added_NI is not None:
        dx_NI += added_NI
    return dx_NI, found


def updates_backward(
    x_NI: Tensor, projections: Sequence[Projection], low: Low, gradients: Sequence[Tensor]
) -> tuple[Tensor | None, list[tuple[Tensor | None, Tensor | None]]]:
    """Return what updates add to the gradient of the layers' input, None without any; and the gradients of A and B, for each layer."""
    found: list[tuple[Tensor | None, Tensor | None]] = [(None, None)] * len(projections)
    updated = [(place, each.update, gradients[place]) for place, each in enumerate(projections) if each.update is not None]
    if low.product_NR is None:
        return None, found
    dtype, share = x_NI.dtype, 1 / (1 - rate_of(projections))
    ranks = [len(update.down) for _, update, _ in updated]
    back_NR = x_NI.new_empty(len(x_NI), sum(ranks))
    dups = []
    columns = low.product_NR.split(ranks, 1), back_NR.split(ranks, 1)
    for (_, update, gradient_NO), low_NR, out_NR in zip(updated, *columns, strict=True):
        scale = update.scale * share
        torch.mm(gradient_NO, update.up.to(dtype), out=out_NR)
        if scale != 1:
            out_NR *= scale
        dups.append(((low_NR.t() @ gradient_NO) * scale).t())
    dx_NI = back_NR @ side_by_side([update.down for _, update, _ in updated], dtype)
    ddowns = (back_NR.t() @ low.masked(x_NI)).split(ranks)
    for (place, _, _), ddown_RI, dup_OR in zip(updated, ddowns, dups, strict=True):
        found[place] = ddown_RI, dup_OR
    return low.masked(dx_NI), found

"""Linear layers in models that are not written out: one autograd Function in the place of PEFT's forward pass or autocast's.

What PEFT makes of LoRA adds the update to an output that is already rounded, which in 16 bits takes small updates for nothing, and
passes over memory for each term. Autocast does the same to weights that are trained themselves (see `llmft.models.rounding`).
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from transformers import PreTrainedModel

from llmft.models.instead import instead
from llmft.models.projection import Low, Projection, project, project_backward, projection_of, ungrouped
from llmft.models.rounding import is_coarse, narrow

# N rows, I and O input and output width of a layer


class FusedLinear(Function):
    """A linear layer, x (N, I) to (N, O), as `project` computes it."""

    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, projection: Projection, *tensors: Tensor | None) -> Tensor:
        (y_NO,), low = project(x_NI, ungrouped([projection], tensors))
        ctx.projection = projection
        ctx.save_for_backward(x_NI, *low, *tensors)
        return y_NO

    @staticmethod
    def backward(ctx: Any, gradient_NO: Tensor) -> tuple[Tensor | None, ...]:
        x_NI, *saved = ctx.saved_tensors
        low, layers = Low(*saved[:3]), ungrouped([ctx.projection], saved[3:])
        dx_NI, found = project_backward(x_NI, layers, low, [gradient_NO])
        return dx_NI, None, *found


def fused(projection: Projection, x: Tensor) -> Tensor:
    """Send x (..., I) through a layer, in autocast's format where that is on."""
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    with torch.autocast(device, enabled=False):
        y_NO: Tensor = FusedLinear.apply(x.to(dtype).flatten(0, -2), projection, *projection.tensors)
        return y_NO.unflatten(0, x.shape[:-1])


@contextmanager
def fused_adapters(model: nn.Module) -> Iterator[None]:
    """Inside the block layers with a plain LoRA update (what `projection_of` knows) compute it themselves; others are PEFT's."""
    with ExitStack() as replaced:
        for layer in model.modules():
            projection = projection_of(layer)
            if projection is not None and projection.update is not None:
                replaced.enter_context(instead(layer, partial(fused, projection)))
        yield


@contextmanager
def coarse_linears(model: PreTrainedModel, precision: torch.dtype) -> Iterator[None]:
    """Inside the block plain layers whose weights are coarse are computed with weights that `narrow` has rounded.

    Where there are gradients, not the output embedding, which the loss may compute once more behind the block.
    """
    head = model.get_output_embeddings() if torch.is_grad_enabled() else None
    apart = set() if head is None else set(head.modules())
    with ExitStack() as replaced:
        for layer in model.modules():
            if type(layer) is nn.Linear and is_coarse(layer.weight, precision) and layer not in apart:
                replaced.enter_context(instead(layer, partial(coarse, layer, [])))
        yield


def coarse(layer: nn.Linear, kept: list[Tensor], x: Tensor) -> Tensor:
    """Send x (..., I) through a layer, unless something stands in for its weight. kept: the weight, once it was rounded."""
    weight: Tensor = layer.weight
    if not torch.is_autocast_enabled(x.device.type):  # where a model asks for float32
        return nn.functional.linear(x, weight, layer.bias)
    if torch.is_grad_enabled() and is_coarse(weight, torch.bfloat16):
        return fused(Projection(weight, layer.bias), x)
    if is_coarse(weight, torch.bfloat16):
        if not kept:
            kept.append(narrow(weight, torch.bfloat16))
        weight = kept[0]
    return nn.functional.linear(x, weight, None if layer.bias is None else narrow(layer.bias, torch.bfloat16))

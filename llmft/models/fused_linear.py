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

from llmft.models.instead import instead
from llmft.models.projection import Low, Projection, project, project_backward, projection_of, ungrouped
from llmft.models.rounding import is_coarse

# I and O input and output width of a layer


class FusedLinear(Function):
    """A linear layer, x (..., I) to (..., O), as `project` computes it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, projection: Projection, *tensors: Tensor | None) -> Tensor:
        (y_NO,), low = project(x.flatten(0, -2), ungrouped([projection], tensors))
        ctx.projection = projection
        ctx.save_for_backward(x, *low, *tensors)
        return y_NO.unflatten(0, x.shape[:-1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        low, layers = Low(*saved[:3]), ungrouped([ctx.projection], saved[3:])
        dx_NI, found = project_backward(x.flatten(0, -2), layers, low, [gradient.flatten(0, -2)])
        return dx_NI.view_as(x), None, *found


def fused(projection: Projection, x: Tensor) -> Tensor:
    """Send x (..., I) through a layer, in autocast's format where that is on."""
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    with torch.autocast(device, enabled=False):
        return FusedLinear.apply(x.to(dtype), projection, *projection.tensors)


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
def coarse_linears(model: nn.Module, precision: torch.dtype) -> Iterator[None]:
    """Inside the block plain layers whose weights are coarse are computed with weights that `narrow` has rounded."""
    with ExitStack() as replaced:
        for layer in model.modules():
            if type(layer) is nn.Linear and is_coarse(layer.weight, precision):
                replaced.enter_context(instead(layer, partial(by_thresholds, layer)))
        yield


def by_thresholds(layer: nn.Linear, x: Tensor) -> Tensor:
    """Send x (..., I) through a layer, as long as nothing stands in for its weight."""
    if is_coarse(layer.weight, torch.bfloat16):
        return fused(Projection(layer.weight, layer.bias), x)
    return nn.functional.linear(x, layer.weight, layer.bias)

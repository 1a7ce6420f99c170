"""Layer norm (Ba et al. 2016, arXiv:1607.06450) and T5's root mean square norm, forward and backward."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from llmft.models.flat.pointwise import rms_norm, rms_norm_backward
from llmft.models.rounding import narrow

# N flat tokens, D model width


class Norm(NamedTuple):
    """A norm's weight (D), its bias (D), None for the root mean square norm, and its eps."""

    weight_D: Tensor
    bias_D: Tensor | None
    eps: float


def norm_of(module: nn.Module) -> Norm | None:
    """Return what a module computes; None for one that is no norm known here."""
    if type(module) is nn.LayerNorm and module.elementwise_affine and module.bias is not None:
        return Norm(module.weight, module.bias, module.eps)
    if type(module).__name__ in ("T5LayerNorm", "MT5LayerNorm"):
        return Norm(module.weight, None, module.variance_epsilon)  # type: ignore[arg-type]
    return None


def normalise(x_ND: Tensor, norm: Norm) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return the norm's output, and mean (None for the root mean square norm) and inverse scale, which the backward pass reads."""
    if norm.bias_D is not None:
        return torch.native_layer_norm(x_ND, x_ND.shape[-1:], norm.weight_D, norm.bias_D, norm.eps)
    out_ND, inverse_N1 = rms_norm(x_ND, narrow(norm.weight_D, x_ND.dtype), norm.eps)
    return out_ND, None, inverse_N1


def normalise_backward(
    gradient_ND: Tensor, x_ND: Tensor, mean_N1: Tensor | None, inverse_N1: Tensor, norm: Norm
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the gradients of x, weight and bias; the first takes the place of `gradient_ND` for the root mean square norm."""
    if norm.bias_D is not None:
        assert mean_N1 is not None
        wanted = [True, norm.weight_D.requires_grad, norm.bias_D.requires_grad]
        size = list(x_ND.shape[-1:])
        found = torch.ops.aten.native_layer_norm_backward(
            gradient_ND, x_ND, size, mean_N1, inverse_N1, norm.weight_D, norm.bias_D, wanted
        )
        return found[0], found[1] if wanted[1] else None, found[2] if wanted[2] else None
    return *rms_norm_backward(gradient_ND, x_ND, inverse_N1, norm.weight_D), None

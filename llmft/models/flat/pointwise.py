"""What stands between a decoder's matrix products, forward and backward: root mean square norm, rotary positions, gated SiLU.

In place where that saves a pass over memory; on processors such passes cost as much as a third of the products.
"""

from collections.abc import Callable
from functools import cache, wraps
from typing import ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

# N flat tokens, D model width, H heads, E head width, F width of the feed-forward layer

BLOCK_NUMBERS = 1 << 18
"""Numbers of a block of rows: a MiB in float32, of which the second-level caches of a processor's cores together hold a few."""

P = ParamSpec("P")
R = TypeVar("R")


def fused_on_gpu(function: Callable[P, R]) -> Callable[P, R]:
    """Make one kernel of a function by torch.compile where its first argument is on a GPU: there each pass costs a launch."""
    compiled = cache(lambda: torch.compile(function, dynamic=True))

    @wraps(function)
    def run(*given: P.args, **options: P.kwargs) -> R:
        return (compiled() if given[0].is_cuda else function)(*given, **options)  # type: ignore[attr-defined]

    return run


@fused_on_gpu
def rms_norm(x_ND: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019, arXiv:1910.07467), and 1 / sqrt(...) in float32 or wider (N, 1)."""
    wide = torch.promote_types(x_ND.dtype, torch.float32)
    square = torch.linalg.vector_norm(x_ND, dim=-1, keepdim=True, dtype=wide).square_()
    scale_N1 = square.div_(x_ND.shape[-1]).add_(eps).rsqrt_()
    return (x_ND * scale_N1).to(x_ND.dtype).mul_(weight_D.to(x_ND.dtype)), scale_N1


@fused_on_gpu
def normed(x_ND: Tensor, scale_N1: Tensor, weight_D: Tensor) -> Tensor:
    """Return what `rms_norm` has returned, from the scale that it has returned."""
    return (x_ND * scale_N1).to(x_ND.dtype).mul_(weight_D.to(x_ND.dtype))


def rms_norm_backward(gradient_ND: Tensor, x_ND: Tensor, scale_N1: Tensor, weight_D: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of x, which takes the place of `gradient_ND`, and of the weight if that is trained.

    On processors in blocks of rows, which the second to fifth pass over them find in the caches.
    """
    rows = len(x_ND) if x_ND.is_cuda else max(1, BLOCK_NUMBERS // x_ND.shape[1:].numel())
    blocks = zip(gradient_ND.split(rows), x_ND.split(rows), scale_N1.split(rows), strict=True)
    found = [_rms_norm_backward(*block, weight_D) for block in blocks]
    return gradient_ND, torch.stack(found).sum(0) if weight_D.requires_grad else None  # type: ignore[arg-type]


@fused_on_gpu
def _rms_norm_backward(gradient_ND: Tensor, x_ND: Tensor, scale_N1: Tensor, weight_D: Tensor) -> Tensor | None:
    normed_ND = x_ND * scale_N1  # in float32 or wider, as all that follows
    dweight_D = (gradient_ND * normed_ND).flatten(0, -2).sum(0) if weight_D.requires_grad else None
    given_ND = gradient_ND * weight_D.to(scale_N1.dtype)
    mean_N1 = torch.linalg.vecdot(given_ND, normed_ND, dim=-1)[..., None].div_(x_ND.shape[-1])
    gradient_ND.copy_(given_ND.addcmul_(normed_ND, mean_N1, value=-1).mul_(scale_N1))
    return dweight_D


@fused_on_gpu
def rotate(x_NHE: Tensor, cos_N1E: Tensor, sin_N1E: Tensor) -> Tensor:
    """Turn pairs of numbers, half a head apart, by their position's angle (Su et al. 2021, arXiv:2104.09864)."""
    half = x_NHE.shape[-1] // 2
    left, right = x_NHE[..., :half], x_NHE[..., half:]
    out_NHE = x_NHE * cos_N1E
    out_NHE[..., :half].addcmul_(right, sin_N1E[..., :half], value=-1)
    out_NHE[..., half:].addcmul_(left, sin_N1E[..., half:])
    return out_NHE


@fused_on_gpu
def gated(gate_NF: Tensor, up_NF: Tensor) -> Tensor:
    """silu(gate) * up (Shazeer 2020, arXiv:2002.05202)."""
    return F.silu(gate_NF).mul_(up_NF)


@fused_on_gpu
def gated_parts(gate_NF: Tensor, up_NF: Tensor) -> tuple[Tensor, Tensor]:
    """Return silu(gate), and its product with up."""
    silu_NF = F.silu(gate_NF)
    return silu_NF, silu_NF * up_NF


@fused_on_gpu
def gated_backward(gradient_NF: Tensor, gate_NF: Tensor, up_NF: Tensor, gate_silu_NF: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of gate and up. What is given for gradient and silu(gate) is written over."""
    dup_NF = gate_silu_NF.mul_(gradient_NF)
    return torch.ops.aten.silu_backward(gradient_NF.mul_(up_NF), gate_NF), dup_NF

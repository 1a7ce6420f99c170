"""Weights in float32 rounded to bfloat16 so that what they have learnt is not rounded away.

Most checkpoints are bfloat16 themselves. Trained in float32, as weights are here, each begins on a number that it is rounded to,
and what it learns shows in no product before it has grown to half the way to the next one, 1/512 to 1/256 of the weight: tens of
steps of fine-tuning, or all of it. Autocast computes so. Here each weight of such a checkpoint has a threshold of its own instead, spread
evenly between one number and the next. What is on a number stays there; of many weights that move by a tenth of the way a tenth
are rounded up, so that products see the whole move. The thresholds are fixed: both passes, and a run that goes on, read the same.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from transformers import PreTrainedModel

# V rows of a table, N of them that are read, D width

LOW_BITS = 16
"""Of a float32 those that a bfloat16 lacks."""
BLOCK = 1 << 18
"""Weights that are rounded at once: a MiB twice, which stays in the processor's caches."""
SAMPLE = 4096
"""Numbers of each weight that are looked at, or up to twice as many."""
NEAR = 1 << (LOW_BITS - 4)
"""In low bits: a sixteenth of the way from one bfloat16 number to the next."""
COARSE = 0.2
"""Share of numbers so near to a bfloat16 one in a checkpoint that has its grain; by chance it is an eighth."""


def mark_coarse(model: PreTrainedModel) -> None:
    """Set `coarse` on the float32 weights of a model that came from a bfloat16 checkpoint.

    Its configuration keeps that under `coarse_weights`: what is fine-tuned no longer shows it, and is read by thresholds all the
    same, lest a score miss what was learnt.
    """
    weights = [weight for weight in model.parameters() if weight.dtype is torch.float32]
    matrices = [weight for weight in weights if weight.ndim > 1]  # norms and biases may be ones and zeros anywhere
    if matrices and not hasattr(model.config, "coarse_weights") and share_near(matrices) > COARSE:
        model.config.coarse_weights = True
    for weight in weights:
        weight.coarse = getattr(model.config, "coarse_weights", False)  # type: ignore[attr-defined]


def share_near(weights: Sequence[Tensor]) -> float:
    """Return the share of the weights' numbers, of some thousand of each, that are near to a bfloat16 number; zeros do not count."""
    numbers = torch.cat([weight.detach().flatten()[:: max(1, weight.numel() // SAMPLE)] for weight in weights])
    low = numbers[numbers != 0].view(torch.int32) & ((1 << LOW_BITS) - 1)
    return float(((low < NEAR) | (low >= (1 << LOW_BITS) - NEAR)).float().mean())


def is_coarse(weight: Tensor, dtype: torch.dtype) -> bool:
    """Tell whether a weight that is read in `dtype` is rounded by thresholds: on processors, one that was marked."""
    marked = getattr(weight, "coarse", False) and weight.dtype is torch.float32
    return marked and dtype is torch.bfloat16 and weight.device.type == "cpu"


def like_marked(weight: Tensor, like: Tensor) -> Tensor:
    """Return a weight that autograd has kept, marked as it was: hooks on what is kept may have lost that."""
    weight.coarse = getattr(like, "coarse", False)  # type: ignore[attr-defined]
    return weight


@contextmanager
def nearest(model: nn.Module) -> Iterator[None]:
    """Inside the block all weights are rounded to the nearest number, as transformers does by itself."""
    coarse: list[Any] = [weight for weight in model.parameters() if getattr(weight, "coarse", False)]
    for weight in coarse:
        weight.coarse = False
    try:
        yield
    finally:
        for weight in coarse:
            weight.coarse = True


def narrow(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a weight in the format that is computed in, by thresholds if it is coarse; for where autograd builds no graph."""
    return by_thresholds(weight) if is_coarse(weight, dtype) else weight.to(dtype)


def by_thresholds(weight: Tensor) -> Tensor:
    """Return a float32 weight in bfloat16, each number rounded by a threshold of its own."""
    found = torch.empty(weight.shape, dtype=torch.bfloat16)
    for out, block in zip(found.view(-1).split(BLOCK), weight.detach().flatten().split(BLOCK), strict=True):
        cut_off(block, thresholds()[: len(block)], out)
    return found


def cut_off(numbers: Tensor, above: Tensor, out: Tensor) -> None:
    """Write numbers as bfloat16: what is above their thresholds is carried over, the rest of the low bits is cut off."""
    bits = numbers.view(torch.int32) + above
    out.copy_(bits.bitwise_and_(-1 << LOW_BITS).view(torch.float32))


def to_16_bits(model: nn.Module) -> None:
    """Put a model's float32 weights in bfloat16, coarse ones by thresholds."""
    for weight in model.parameters():
        if weight.dtype is torch.float32:
            weight.data = narrow(weight, torch.bfloat16)


@cache
def thresholds() -> Tensor:
    """Return what is added to the low bits of a block's numbers, 0 to 65,535, the same in every run."""
    return torch.randint(0, 1 << LOW_BITS, (BLOCK,), dtype=torch.int32, generator=torch.Generator().manual_seed(0))


class Rows(Function):
    """Rows of a table (N, D) in another format, each as `narrow` rounds it in the whole table."""

    @staticmethod
    def forward(ctx: Any, rows_ND: Tensor, ids_N: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.dtype = rows_ND.dtype
        width = rows_ND.shape[1]
        places_ND = (ids_N[:, None] * width + torch.arange(width)) % BLOCK
        found = torch.empty(rows_ND.shape, dtype=dtype)
        cut_off(rows_ND, thresholds()[places_ND], found)
        return found

    @staticmethod
    def backward(ctx: Any, gradient_ND: Tensor) -> tuple[Tensor | None, ...]:
        return gradient_ND.to(ctx.dtype), None, None


def narrow_rows(rows_ND: Tensor, table_VD: Tensor, ids_N: Tensor, dtype: torch.dtype) -> Tensor:
    """Return rows that were looked up in a table in the format that is computed in."""
    found: Tensor = Rows.apply(rows_ND, ids_N, dtype) if is_coarse(table_VD, dtype) else rows_ND.to(dtype)
    return found

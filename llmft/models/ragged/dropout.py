"""Dropout's masks on a processor, from one random byte a number: torch's own take longer there than the product before them."""

import torch
from torch import Tensor

STEPS = 256  # values of a byte


def keep_mask(rows: int, columns: int, rate: float) -> Tensor:
    """Return which numbers of a matrix are kept (bool), each dropped with probability `rate` (Srivastava et al. 2014).

    A rate lies between two of a byte's steps: every row draws which of them is its own, so that each number is dropped with the
    very rate. Drawn from torch's generator for the CPU, whose state checkpoints hold.
    """
    assert 0 < rate < 1, f"rate={rate}"
    count = rows * columns
    drawn = torch.empty(-(-count // 8), dtype=torch.int64).random_(-(2**63), None).view(torch.uint8)[:count].view(rows, columns)
    below = int(rate * STEPS)
    least_N1 = (below + (torch.rand(rows, 1) < rate * STEPS - below)).to(torch.uint8)
    return drawn >= least_N1


def kept(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return what the mask keeps, the rest 0, as a new tensor or the same without a mask; not scaled by 1 / (1 - rate)."""
    return x if mask is None else x * mask


def keep_(x: Tensor, mask: Tensor | None) -> Tensor:
    """The same in place."""
    return x if mask is None else x.mul_(mask)

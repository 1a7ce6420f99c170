"""Dropout's masks on a processor, from one random byte a number: torch's own takes longer there than the product before it."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from llmft.hardware.arena import Arena, kept

# N, C rows and columns of a matrix

STEPS = 256  # values of a byte


class Mask(NamedTuple):
    """Which numbers of a matrix are kept: those whose random byte (N, C) is at least their row's threshold (N, 1).

    Kept as bytes, a quarter of what numbers to multiply by would take; making those costs a pass over memory each time.
    """

    drawn_NC: Tensor
    least_N1: Tensor

    def ones(self, like: Tensor) -> Tensor:
        """Return 1 for what is kept and 0 for the rest, in the shape and format of `like`."""
        found = torch.empty(self.drawn_NC.shape, dtype=like.dtype)
        return torch.ge(self.drawn_NC, self.least_N1, out=found).view(like.shape)


def draw(shape: Sequence[int], rate: float, arena: Arena | None = None) -> Mask:
    """Draw a mask that drops each number with probability `rate` (Srivastava et al. 2014), from torch's generator for the CPU.

    A rate lies between two of a byte's steps: every row draws which of them is its own, so that each number is dropped with the
    very rate. arena: where the mask lies, None: wherever there is room.
    """
    assert 0 < rate <= 1 - 1 / STEPS, f"rate={rate}"
    rows, columns = shape
    count = rows * columns
    words = (-(-count // 8),)
    drawn = torch.empty(words, dtype=torch.int64) if arena is None else arena.empty(words, torch.int64)
    drawn = drawn.random_(-(2**63), None).view(torch.uint8)[:count]
    below = int(rate * STEPS)
    least_N1 = (torch.rand(rows, 1) < rate * STEPS - below).to(torch.uint8).add_(below)
    return Mask(drawn.view(rows, columns), kept(arena, least_N1))


def dropped(x_NC: Tensor, rate: float, training: bool) -> Tensor:
    """Dropout of x for autograd: a mask of its own each time."""
    if not (training and rate):
        return x_NC
    return x_NC * draw(x_NC.shape, rate).ones(x_NC).mul_(1 / (1 - rate))

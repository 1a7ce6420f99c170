"""Gradients between steps: small ones keep their memory, large ones give it back to the next pass.

Small tensors that come in the middle of a pass and stay would lie in the holes that large ones leave, and make the next large
ones take fresh memory.
"""

from collections.abc import Iterable

import torch
from torch import nn

SMALL_BYTES = 4 << 20


@torch.no_grad()
def reserve_gradients(weights: Iterable[nn.Parameter]) -> None:
    """Give small weights a gradient of 0, before anything else is computed: an adapter's, which are all used."""
    for weight in weights:
        if weight.nbytes <= SMALL_BYTES:
            weight.grad = torch.zeros_like(weight)


@torch.no_grad()
def clear_gradients(weights: Iterable[nn.Parameter]) -> None:
    """Begin anew: small gradients become 0 where they are, large ones go."""
    small = []
    for weight in weights:
        if weight.grad is not None and weight.grad.nbytes <= SMALL_BYTES:
            small.append(weight.grad)
        else:
            weight.grad = None
    if small:
        torch._foreach_zero_(small)

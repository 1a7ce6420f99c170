"""Gradients between steps: small ones keep their memory, large ones give it back to the next pass.

Small tensors that come in the middle of a pass and stay would lie in the holes that large ones leave, and make the next large
ones take fresh memory. For what is larger than an adapter's it does not pay: writing zeros and adding the first pass's gradients to
them takes four passes over memory, where those could be handed over.
"""

from collections.abc import Iterable

import torch
from torch import nn

SMALL_BYTES = 512 << 10
"""Of an adapter of rank 16 beside a layer 8,192 wide."""


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

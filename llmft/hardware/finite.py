"""Whether numbers are numbers: a quick look at many tensors at once."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm


@torch.no_grad()
def first_not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """Return the name of the first tensor that holds not-a-number or an infinity; None if all of them are finite.

    Costs one pass over memory: a sum is finite only where all it sums is. It may overflow where the numbers themselves do not,
    so each tensor is looked at only where the sum is not finite. A GPU takes norms instead, of many tensors at once; on a
    processor they take twice a sum's time.
    """
    numbers = [(name, tensor.detach()) for name, tensor in tensors if tensor.is_floating_point()]
    if not numbers or total([tensor for _, tensor in numbers]).isfinite():
        return None
    return next((name for name, tensor in numbers if not tensor.isfinite().all()), None)


def total(tensors: list[Tensor]) -> Tensor:
    """Return a number that is finite only if all numbers are."""
    if any(tensor.is_cuda for tensor in tensors):
        return get_total_norm(tensors)
    return torch.stack([tensor.sum().float() for tensor in tensors]).sum()

"""Whether numbers are numbers: a quick look at many tensors at once."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm


@torch.no_grad()
def first_not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """Return the name of the first tensor that holds not-a-number or an infinity; None if all of them are finite.

    Costs one pass over memory: a norm is finite only where all it sums is. Squares may overflow where the numbers themselves
    do not, so each tensor is looked at only where the norm is not finite.
    """
    numbers = [(name, tensor.detach()) for name, tensor in tensors if tensor.is_floating_point()]
    if not numbers or get_total_norm([tensor for _, tensor in numbers]).isfinite():
        return None
    return next((name for name, tensor in numbers if not tensor.isfinite().all()), None)

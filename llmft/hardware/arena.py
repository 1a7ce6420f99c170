"""Memory for what a pass keeps until its gradients are made, in blocks that the next pass takes again.

On a processor, what a pass keeps and what it throws away at once would otherwise share the C library's heap: each pass finds it
cut into other holes, and a run takes a third more than it keeps.
"""

import weakref
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

LEAST, MOST = 1 << 20, 64 << 20
"""Bytes of a block: each twice the one before, up to the second. From 32 MiB on the C library takes memory from the system."""
ALIGNMENT = 64
"""Bytes of a cache line, by which torch aligns its own tensors."""

_free: list[torch.UntypedStorage] = []


class Arena:
    """Blocks in which tensors lie one after the other. They are free for others once nothing holds the arena any more.

    Whoever keeps a tensor of it has to keep the arena as well.
    """

    def __init__(self) -> None:
        self._blocks: list[torch.UntypedStorage] = []
        self._used = 0
        weakref.finalize(self, _free.extend, self._blocks)

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return a tensor of any numbers. It is no view: what is done in place to one is not done to others."""
        size = -(-prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT
        if not self._blocks or self._used + size > self._blocks[-1].nbytes():
            self._blocks.append(block_of(size, self._blocks[-1].nbytes() if self._blocks else 0))
            self._used = 0
        start, self._used = self._used, self._used + size
        strides = [prod(shape[place + 1 :]) for place in range(len(shape))]
        return torch.empty(0, dtype=dtype).set_(self._blocks[-1], start // dtype.itemsize, tuple(shape), tuple(strides))


def block_of(size: int, before: int) -> torch.UntypedStorage:
    """Return a block of at least `size` bytes: the smallest free one, or a new one after one of `before` bytes."""
    fitting = [block for block in _free if block.nbytes() >= size]
    if fitting:
        smallest = min(fitting, key=lambda block: block.nbytes())
        _free.remove(smallest)
        return smallest
    return torch.UntypedStorage(max(size, min(max(2 * before, LEAST), MOST)))


def drop_free() -> None:
    """Give free blocks back to the system."""
    _free.clear()


def empty(arena: Arena | None, like: Tensor, *shape: int) -> Tensor:
    """Return a tensor of any numbers, of the format and on the device of another; in an arena if there is one."""
    return like.new_empty(shape) if arena is None else arena.empty(shape, like.dtype)


def kept(arena: Arena | None, tensor: Tensor) -> Tensor:
    """Return a small tensor that is kept, in an arena if there is one: left in the heap it would cut holes that large ones need."""
    return tensor if arena is None else arena.empty(tensor.shape, tensor.dtype).copy_(tensor)

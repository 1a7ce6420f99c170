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
OWN = MOST // 4
"""Bytes from which on a tensor has a block of its own: others would leave much of theirs unused."""
ALIGNMENT = 64
"""Bytes of a cache line, by which torch aligns its own tensors."""

_free: list[torch.UntypedStorage] = []


class Arena:
    """Blocks in which tensors lie one after the other. They are free for others once nothing holds the arena any more.

    Whoever keeps a tensor of it has to keep the arena as well.
    """

    def __init__(self) -> None:
        self._blocks: list[torch.UntypedStorage] = []
        self._open: torch.UntypedStorage | None = None
        self._used = 0
        weakref.finalize(self, _free.extend, self._blocks)

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Return a tensor of any numbers. It is no view: what is done in place to one is not done to others."""
        size = -(-prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT
        strides = [prod(shape[place + 1 :]) for place in range(len(shape))]
        block, start = self._place(size)
        return torch.empty(0, dtype=dtype).set_(block, start // dtype.itemsize, tuple(shape), tuple(strides))

    def _place(self, size: int) -> tuple[torch.UntypedStorage, int]:
        """Return a block that has room for `size` bytes, and where in it."""
        if size >= OWN:
            self._blocks.insert(0, block_of(size, size))
            return self._blocks[0], 0
        if self._open is None or self._used + size > self._open.nbytes():
            before = 0 if self._open is None else self._open.nbytes()
            self._open, self._used = block_of(size, min(max(2 * before, LEAST), MOST)), 0
            self._blocks.append(self._open)
        self._used += size
        return self._open, self._used - size


def block_of(least: int, usual: int) -> torch.UntypedStorage:
    """Return the smallest free block of at least `least` bytes, or a new one of `usual` bytes, of `least` where memory is short."""
    fitting = [block for block in _free if block.nbytes() >= least]
    if fitting:
        smallest = min(fitting, key=lambda block: block.nbytes())
        _free.remove(smallest)
        return smallest
    drop_free()  # too small, all of them
    try:
        return torch.UntypedStorage(max(least, usual))
    except RuntimeError:
        return torch.UntypedStorage(least)


def drop_free() -> None:
    """Give free blocks back to the system."""
    _free.clear()


def empty(arena: Arena | None, like: Tensor, *shape: int) -> Tensor:
    """Return a tensor of any numbers, of the format and on the device of another; in an arena if there is one."""
    return like.new_empty(shape) if arena is None else arena.empty(shape, like.dtype)


def kept(arena: Arena | None, tensor: Tensor) -> Tensor:
    """Return a small tensor that is kept, in an arena if there is one: left in the heap it would cut holes that large ones need."""
    return tensor if arena is None else arena.empty(tensor.shape, tensor.dtype).copy_(tensor)

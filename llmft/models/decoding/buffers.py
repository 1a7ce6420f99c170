"""Keys and values of texts being written: allocated once per layer, written in place, moved only where a text moves."""

import errno
import mmap
from collections.abc import Callable, Sequence
from math import prod
from typing import Any
from weakref import WeakMethod

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

# R rows (texts, or sources), K key/value heads, T positions, D head width


class Buffer:
    """Keys and values (R, K, T, D) of one layer, for heads as in the first `keys` and `values`.

    Both have the values' format, which is the one that attention computes in.
    """

    def __init__(self, rows: int, width: int, keys: Tensor, values: Tensor) -> None:
        # zeros: what is masked still gets multiplied by 0, and 0 times what may stand in fresh memory is no number
        shape = (rows, values.shape[1], width)
        self.keys = zeros((*shape, keys.shape[-1]), values)
        self.values = zeros((*shape, values.shape[-1]), values)

    def slots(self, places_R: Tensor) -> Tensor:
        """Return where row i's heads keep its position `places_R[i]`, row after row, as `append` takes it."""
        _, heads, width, _ = self.keys.shape
        every = torch.arange(len(places_R) * heads, device=places_R.device)
        return every * width + places_R.repeat_interleave(heads)

    def append(self, slots: Tensor, keys_KRD: Tensor, values_KRD: Tensor) -> None:
        """Write the new key and value of each row."""
        for kept, new in ((self.keys, keys_KRD), (self.values, values_KRD)):
            kept.view(-1, kept.shape[-1]).index_copy_(0, slots, new.transpose(0, 1).flatten(0, 1).to(kept.dtype))

    def move(self, sources: Tensor, targets: Tensor, stop: int, start: int = 0) -> None:
        """Let rows `targets` hold what rows `sources` hold at positions from `start` up to `stop`."""
        if len(sources) and stop > start:
            for kept in (self.keys, self.values):
                kept[targets, :, start:stop] = kept[sources, :, start:stop]


def zeros(shape: Sequence[int], like: Tensor) -> Tensor:
    """Return zeros in the format of another tensor. On a processor, pages of memory that are not written to take no room.

    Most rows end early. Raises MemoryError where the system refuses so much.
    """
    if like.device.type != "cpu" or not prod(shape):
        return like.new_zeros(shape)
    size = prod(shape) * like.element_size()
    try:
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        raise MemoryError(f"can't allocate memory: {size:,} bytes for keys or values") from error
    return torch.frombuffer(pages, dtype=like.dtype).view(*shape)


class Layer(CacheLayerMixin):
    """What transformers sees of one layer: new keys and values go to `write`, which returns those to attend to."""

    is_sliding = False

    def __init__(self, write: "WeakMethod[Write]", length: WeakMethod[Callable[[], int]]) -> None:
        super().__init__()
        self._write, self._length = write, length
        self.source: Buffer | None = None  # of what was read: prompts, or what an encoder made
        self.own: Buffer | None = None  # of what was written, where it does not stand behind a prompt

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: `Buffer` allocates."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **options: object) -> tuple[Tensor, Tensor]:
        """Keep the new tokens' keys and values and return what they attend to."""
        write = self._write()
        assert write is not None
        return write(self, key_states, value_states)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the number of keys and the first one's place; no mask is built from it."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Return how many tokens were written before the current pass, from which some architectures count positions."""
        length = self._length()
        assert length is not None
        return length()

    def get_max_length(self) -> int:
        """Return -1: the texts know their limit."""
        return -1


Write = Callable[[Layer, Tensor, Tensor], tuple[Tensor, Tensor]]


class Kept(Cache):
    """A cache for transformers' models whose layers appear as they are written.

    write, length: methods of whoever holds the cache. They are not held in turn, so that a search's memory is free as soon as
    it is let go, and not when garbage is collected.
    """

    layers: list[Layer]  # type: ignore[assignment]

    def __init__(self, write: Write, length: Callable[[], int]) -> None:
        known: Any = WeakMethod(write), WeakMethod(length)
        super().__init__(layer_class_to_replicate=lambda: Layer(*known))  # type: ignore[arg-type]


def moved(order: list[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return sources and targets of the rows that change where new row i is to hold what row `order[i]` held."""
    pairs = [(source, target) for target, source in enumerate(order) if source != target]
    found = torch.tensor(pairs, dtype=torch.long, device=device).view(-1, 2)
    return found[:, 0], found[:, 1]

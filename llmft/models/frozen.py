"""Lower layers that keep their pretrained weights, and what they make of documents, which is then the same each time."""

import os
import tempfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from llmft.errors import ConfigError

# N flat tokens of documents, L of one of them, D model width


class States:
    """Hidden states of documents (L, D), computed once each and read from a file from then on.

    The file has no name, so nothing is left of it when the process ends. It grows while the disk has more than `spare` bytes
    free. What is not kept, or cannot be read, is computed each time, to the same bits: a document is computed alone in any case.
    """

    def __init__(self, folder: Path, width: int, dtype: torch.dtype, spare: int):
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # open as long as this object is there
        weakref.finalize(self, self._file.close)
        self._places: dict[bytes, int] = {}
        self._width, self._dtype = width, dtype
        self._end, self._spare, self._open = 0, spare, True

    def __len__(self) -> int:
        """Documents whose states are kept."""
        return len(self._places)

    def of(self, keys: Sequence[bytes], lengths: Sequence[int], compute: Callable[[int], Tensor]) -> Tensor:
        """Return the states (N, D) of documents told apart by `keys`; those not yet kept by compute(place)."""
        found_ND = torch.empty(sum(lengths), self._width, dtype=self._dtype)
        for place, (key, rows_LD) in enumerate(zip(keys, found_ND.split(list(lengths)), strict=True)):
            if not self._read(key, rows_LD):
                rows_LD.copy_(compute(place))
                self._keep(key, rows_LD)
        return found_ND

    def _read(self, key: bytes, rows_LD: Tensor) -> bool:
        """Fill `rows_LD` with what is kept; False if nothing is, or it cannot be read."""
        start = self._places.get(key)
        if start is None:
            return False
        room, done = bytes_of(rows_LD), 0
        try:
            while done < len(room):
                step = os.preadv(self._file.fileno(), [room[done:]], start + done)
                if not step:
                    return False
                done += step
        except OSError:
            return False
        return True

    def _keep(self, key: bytes, rows_LD: Tensor) -> None:
        """Write a document's states behind the others, while there is room."""
        given, done = bytes_of(rows_LD), 0
        if key in self._places or not self._open:
            return
        try:
            disk = os.fstatvfs(self._file.fileno())
            if disk.f_bavail * disk.f_frsize < self._spare + len(given):
                self._open = False
                return
            while done < len(given):
                done += os.pwritev(self._file.fileno(), [given[done:]], self._end + done)
        except OSError:  # a full disk, or a limit on files' sizes
            self._open = False
            return
        self._places[key] = self._end
        self._end += len(given)


def bytes_of(rows_LD: Tensor) -> memoryview:
    """Return the memory of a tensor without gaps."""
    return rows_LD.view(torch.uint8).numpy().reshape(-1).data


def key_of(*ids: np.ndarray) -> bytes:
    """Return what tells a document from others: a hash of its token ids, and of what else is read with them."""
    found = blake2b(digest_size=16)
    for each in ids:
        found.update(np.ascontiguousarray(each).tobytes())
    return found.digest()


@dataclass
class Frozen:
    """A model's lowest layers that are not trained, `count` of them, the embeddings before them neither; `states`: where what they give is kept."""

    count: int
    states: States | None = None


def freeze(model: PreTrainedModel, count: int) -> list[str]:
    """Let the `count` lowest layers, of an encoder-decoder its encoder's, and all embeddings before them stay as they are.

    They are not trained, and drop nothing at random inside. An embedding that is the output layer, too, stays as it is in both
    places. Returns the names of all modules that are frozen. Raises ConfigError where there are fewer layers.
    """
    stack: Any = model.get_encoder() if model.config.is_encoder_decoder else model.base_model
    blocks = blocks_of(stack)
    if blocks is None or count > len(blocks):
        has = "no layers that can be counted" if blocks is None else f"{len(blocks)} layers"
        raise ConfigError(
            f"adapter.frozen_layers={count}: {model.config.model_type} has {has}{' in its encoder' if stack is not model.base_model else ''}. "
            "Set it lower."
        )
    frozen = [*blocks[:count], *embeddings_of(stack, blocks)]
    for module in frozen:
        module.requires_grad_(False)
        module.eval()
        module.train = lambda mode=True, module=module: module  # it stays so
    inside = {id(each) for module in frozen for each in module.modules()}
    return [name for name, module in model.named_modules() if id(module) in inside]


def blocks_of(stack: nn.Module) -> nn.ModuleList | None:
    """Return the layers of an encoder or a decoder, the lowest first; None where they are kept in another way, as XLM's parts are."""
    count = getattr(stack.config, "num_hidden_layers", None)
    found: list[tuple[str, nn.ModuleList]] = []
    for name, module in stack.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer, _ in found)
        if isinstance(module, nn.ModuleList) and len(module) == count and not inside:
            found.append((name, module))
    return found[0][1] if len(found) == 1 else None


def embeddings_of(stack: nn.Module, blocks: nn.ModuleList) -> list[nn.Module]:
    """Return what stands before the layers: tables, and what architectures call embeddings, norms among it."""
    inside = {id(module) for module in blocks.modules()}
    named = [(name, module) for name, module in stack.named_modules() if name and id(module) not in inside]
    return [module for name, module in named if isinstance(module, nn.Embedding) or "embed" in name.rpartition(".")[2]]

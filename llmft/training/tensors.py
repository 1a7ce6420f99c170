"""Tensors as a safetensors file, written piece by piece: no second copy of them in memory.

The format (huggingface.co/docs/safetensors): length of the header in 8 bytes, a header of JSON with type, shape and place
of each tensor, then their bytes. The order is that of safetensors' own writer: types that need the widest alignment first,
then by name; so the files are the same as its, byte for byte.
"""

import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

Chunk = bytes | bytearray | memoryview
CHUNK_BYTES = 1 << 20

TYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.float32: "F32",
    torch.complex64: "C64",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.uint64: "U64",
}
"""In the order of safetensors' own enumeration."""


def chunks(tensors: Mapping[str, Tensor]) -> Iterator[Chunk]:
    """The bytes of a safetensors file, in pieces of at most CHUNK_BYTES. Raises ValueError for a type the format lacks."""
    assert sys.byteorder == "little"
    order = list(TYPES)
    names = sorted(tensors, key=lambda name: (-order.index(tensors[name].dtype), name))
    header, place = {}, 0
    for name in names:
        tensor = tensors[name]
        size = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    bodies = (_bytes_of(tensors[name]) for name in names)
    return _joined(itertools.chain([memoryview(len(text).to_bytes(8, "little") + text)], bodies))


def _joined(pieces: Iterable[memoryview]) -> Iterator[Chunk]:
    """Put small pieces together and cut large ones, so that a thousand small tensors are not a thousand writes."""
    waiting = bytearray()
    for piece in pieces:
        for start in range(0, len(piece), CHUNK_BYTES):
            part = piece[start : start + CHUNK_BYTES]
            if waiting and len(waiting) + len(part) > CHUNK_BYTES:
                yield waiting
                waiting = bytearray()
            if len(part) == CHUNK_BYTES:
                yield part
            else:
                waiting += part
    if waiting:
        yield waiting


def _bytes_of(tensor: Tensor) -> memoryview:
    """A tensor's bytes; it is copied only where it lies on another device or not in order."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data

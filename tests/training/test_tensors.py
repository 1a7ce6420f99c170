"""The files are those of safetensors' own writer, byte for byte."""

import pytest
import torch
from safetensors.torch import load, save

from llmft.training import tensors

KINDS = {
    "weights": {"b": torch.eye(3, 4), "a": torch.linspace(-1, 1, 630_000).reshape(700, 900), "bias": torch.ones(5)},
    "names": {'é\n\x01"\\': torch.arange(5), "z": torch.arange(2), "": torch.arange(1)},
    "shapes": {"none": torch.empty(0, 3), "one": torch.tensor(3.0), "1": torch.ones(1, 1, 1)},
    "types": {str(dtype): torch.arange(3).to(dtype) for dtype in tensors.TYPES},
    "nothing": {},
    "a thousand": {f"layers.{number}": torch.full((number,), number) for number in range(1000)},
}


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_are_safetensors_own(kind):
    written = list(tensors.chunks(KINDS[kind]))
    assert b"".join(written) == save(KINDS[kind])
    assert all(len(chunk) <= tensors.CHUNK_BYTES for chunk in written)


def test_what_is_not_in_order_is_written_in_order():
    turned = torch.arange(12.0).reshape(3, 4).t()
    (found,) = load(b"".join(tensors.chunks({"x": turned}))).values()
    assert torch.equal(found, turned)
    assert found.shape == (4, 3)


def test_large_tensors_are_not_copied(monkeypatch):
    weight = torch.zeros(tensors.CHUNK_BYTES)  # four chunks
    parts = list(tensors.chunks({"x": weight}))
    weight += 1  # shows in the pieces, which are views of it
    assert b"".join(parts)[-4 * weight.numel() :] == weight.numpy().tobytes()
    assert len(parts) == 5


def test_a_type_that_the_format_lacks():
    with pytest.raises(ValueError, match=r"torch\.complex128"):
        list(tensors.chunks({"x": torch.zeros(1, dtype=torch.complex128)}))

"""Memory of texts being written: what takes room, and when it is given back."""

import gc
import weakref

import pytest
import torch

from llmft.config.schema import Generation
from llmft.hardware.limits import resident_bytes
from llmft.models.decoding.buffers import Buffer, zeros
from llmft.models.generate import generation_config, inside, own_search

MIB = 1 << 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zeros_take_room_where_they_are_written_to(dtype):
    before = resident_bytes()
    found = zeros((64, 4, 1024, 128), torch.empty(0, dtype=dtype))  # 64 or 128 MiB
    assert found.dtype == dtype
    assert found.shape == (64, 4, 1024, 128)
    assert resident_bytes() - before < 8 * MIB
    assert found.max() == found.min() == 0  # nor do they where they are read
    assert resident_bytes() - before < 8 * MIB
    found[3] = 1
    assert found[3].min() == found.max() == 1
    assert found[:3].max() == found[4:].max() == 0
    assert resident_bytes() - before < 8 * MIB + found[3].nbytes
    assert zeros((0, 3), torch.empty(0, dtype=dtype)).shape == (0, 3)


def test_rows_are_appended_at_their_own_places():
    keys, values = torch.rand(2, 3, 4), torch.rand(2, 3, 5)  # 2 heads, 3 rows
    buffer = Buffer(4, 6, keys[None], values[None])
    buffer.append(buffer.slots(torch.tensor([5, 0, 2])), keys, values)
    for row, place in enumerate((5, 0, 2)):
        assert buffer.keys[row, :, place].equal(keys[:, row])
        assert buffer.values[row, :, place].equal(values[:, row])
        buffer.keys[row, :, place] = buffer.values[row, :, place] = 0
    assert not buffer.keys.any()
    assert not buffer.values.any()


@pytest.mark.parametrize("beams", [1, 2], ids=["greedy", "beams"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "t5", "marian"])
def test_a_search_that_is_let_go_holds_no_memory(open_writer, sources_for, name, beams):
    """Not even until garbage is collected: a run's memory would grow by every batch that was written."""
    pretrained = open_writer(name)
    config = generation_config(Generation(max_new_tokens=3, num_beams=beams), pretrained, [2], 0)
    sources = [source[:6] for source in sources_for(pretrained)]
    gc.collect()
    gc.disable()
    try:
        with inside(pretrained, torch.float32):
            search = own_search(pretrained, config, list(enumerate(sources)), 4, 0)
            search.advance()
            writer = search.writer
        caches = [writer.cache] if name in ("llama", "gpt2") else [writer.own, writer.cross]
        buffers = [each for cache in caches for layer in cache.layers for each in (layer.source, layer.own) if each is not None]
        kept = [weakref.ref(tensor) for buffer in buffers for tensor in (buffer.keys, buffer.values)]
        assert len(buffers) == sum(len(cache.layers) for cache in caches) * (1 if len(caches) == 2 else beams)
        del search, writer, caches, buffers
        assert not any(ref() for ref in kept)
    finally:
        gc.enable()

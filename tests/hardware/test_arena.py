"""Blocks of memory that passes take turns in."""

import gc

import pytest
import torch

from llmft.hardware import arena
from llmft.hardware.arena import Arena, drop_free, empty


@pytest.fixture(autouse=True)
def none_free():
    drop_free()
    yield
    drop_free()


def test_tensors_lie_apart():
    found = Arena()
    tensors = [found.empty((rows, 7), torch.float32).fill_(rows) for rows in range(1, 40)]
    tensors += [found.empty((5,), torch.bfloat16).fill_(99), found.empty((2, 3, 4), torch.float64).fill_(100)]
    for rows, tensor in enumerate(tensors[:39], 1):
        assert tensor.shape == (rows, 7)
        assert tensor.is_contiguous()
        assert (tensor == rows).all()
        assert tensor.data_ptr() % arena.ALIGNMENT == 0
    assert (tensors[39] == 99).all()
    assert (tensors[40] == 100).all()


def test_what_is_done_in_place_to_one_is_not_done_to_others():
    """Autograd refuses to go back through what was changed, and counts changes for all views of a tensor together."""
    found = Arena()
    one, two = found.empty((3,), torch.float32), found.empty((3,), torch.float32)
    two.fill_(1)
    before = one._version
    two.add_(1)
    assert one._version == before
    assert not one._is_view()


def test_blocks_go_to_the_next():
    first = Arena()
    place = first.empty((1000,), torch.float32).data_ptr()
    second = Arena()
    assert second.empty((1000,), torch.float32).data_ptr() != place
    del first
    gc.collect()
    third = Arena()
    assert third.empty((1000,), torch.float32).data_ptr() == place


def test_blocks_grow_and_large_tensors_have_one_of_their_own():
    found = Arena()
    for _ in range(9):
        found.empty((1 << 19,), torch.float32)  # 2 MiB
    large = found.empty((arena.MOST,), torch.float32)
    small = found.empty((5,), torch.float32)
    sizes = [block.nbytes() >> 20 for block in found._blocks]
    assert sizes == [256, 2, 4, 8, 16]
    assert small.data_ptr() != large.data_ptr()


def test_blocks_that_are_too_small_go_before_memory_is_asked_for():
    first = Arena()
    first.empty((10,), torch.float32)
    del first
    gc.collect()
    assert len(arena._free) == 1
    Arena().empty((arena.MOST,), torch.float32)
    assert [block.nbytes() for block in arena._free] == [4 * arena.MOST]


def test_free_blocks_can_be_dropped():
    found = Arena()
    found.empty((10,), torch.float32)
    del found
    gc.collect()
    assert arena._free
    drop_free()
    assert not arena._free


def test_without_an_arena_it_is_any_memory():
    like = torch.zeros(2, dtype=torch.float64)
    assert empty(None, like, 4, 5).shape == (4, 5)
    assert empty(Arena(), like, 4, 5).dtype is torch.float64

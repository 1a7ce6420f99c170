"""Gradients between steps."""

import torch
from torch import nn

from llmft.hardware.gradients import SMALL_BYTES, clear_gradients, reserve_gradients


def test_small_ones_stay_where_they_are_and_large_ones_go():
    small, large = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(SMALL_BYTES // 4 + 1))
    unused = nn.Parameter(torch.ones(3))
    (2 * small.sum() + large.sum()).backward()
    place = small.grad.data_ptr()
    clear_gradients([small, large, unused])
    assert small.grad.tolist() == [0, 0, 0]
    assert small.grad.data_ptr() == place
    assert large.grad is None
    assert unused.grad is None
    small.sum().backward()
    assert small.grad.tolist() == [1, 1, 1]
    assert small.grad.data_ptr() == place


def test_an_adapter_has_its_gradients_before_the_first_pass():
    small, large = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(SMALL_BYTES // 4 + 1))
    reserve_gradients([small, large])
    assert small.grad.tolist() == [0, 0, 0]
    assert not small.grad.requires_grad
    assert large.grad is None

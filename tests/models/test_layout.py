"""Heads of two rows in another order, worked out by hand."""

import torch

from llmft.models.layout import layout_of


def test_there_and_back():
    """Two rows of two heads: first the second heads and one row for filling, then the first ones."""
    parts = [(torch.tensor([1, 3, 3]), torch.tensor([False, False, True])), (torch.tensor([[0], [2]]), torch.tensor([False]))]
    layout = layout_of(parts)
    heads = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    assert layout.lay_out(heads)[:, 0].tolist() == [2, 4, 4, 1, 3]
    assert layout.lay_out_gradient(heads)[:, 0].tolist() == [2, 4, 0, 1, 3]
    assert layout.flat(torch.tensor([[5.0], [6.0], [7.0], [8.0], [9.0]]))[:, 0].tolist() == [8, 5, 9, 6]


def test_nothing():
    layout = layout_of([])
    assert layout.lay_out(torch.ones(0, 4)).shape == layout.flat(torch.ones(0, 4)).shape == (0, 4)

"""Attention over documents laid end to end against the formula written out with a mask for all of them at once."""

import pytest
import torch

from llmft.models.flat import blocks as cut
from llmft.models.flat.blocks import blocks_of
from llmft.models.flat.causal import Causal

LENGTHS = (4, 1, 9, 35)
SCALE = 0.3


def by_formula(q, k, v, window):
    """softmax(QK^T s)V where a query sees its own document's tokens before it, `window` of them at most."""
    heads = q.shape[1] // k.shape[1]
    keys, values = (each.repeat_interleave(heads, dim=1) for each in (k, v))
    document = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    place = torch.arange(sum(LENGTHS))
    age = place[:, None] - place
    seen = (document[:, None] == document) & (age >= 0) & (age < (window or 99))
    scores = torch.einsum("qhe,khe->hqk", q, keys) * SCALE
    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
    return torch.einsum("hqk,khe->qhe", weights, values)


@pytest.mark.parametrize(
    "rows", [None, [2, 3, 5, 9, 13, 14, 30, 47], [0, 4]], ids=["all ask", "some ask", "none of the last document"]
)
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("num_key_heads", [1, 2, 4])
@pytest.mark.parametrize("sizes", [(128, 192), (16, 24)], ids=["one block each", "several blocks"])
def test_outputs_and_gradients(rows, window, num_key_heads, sizes, monkeypatch):
    monkeypatch.setattr(cut, "ROWS", sizes[0])
    monkeypatch.setattr(cut, "MOST_ROWS", sizes[1])
    torch.manual_seed(0)
    total = sum(LENGTHS)
    q, k, v = (torch.randn(total, heads, 8, requires_grad=True) for heads in (4, num_key_heads, num_key_heads))
    asked = slice(None) if rows is None else rows
    expected = by_formula(q, k, v, window)[asked]
    blocks = blocks_of(LENGTHS, window, rows)
    with torch.no_grad():
        attention = Causal(blocks, 4, num_key_heads, q)
        found, held = attention.forward(q[asked] * SCALE, k, v)
        incoming = torch.randn_like(found)
        dscaled, *others = attention.backward(incoming, held)
    torch.testing.assert_close(found, expected)
    dq, dk, dv = torch.autograd.grad(expected, [q, k, v], incoming)
    for one, two in zip((dscaled * SCALE, *others), (dq[asked], dk, dv), strict=True):
        torch.testing.assert_close(one, two)


PIECES, PARENTS = (6, 2, 5, 3, 4), (-1, 0, 0, 2, -1)  # 6 tokens that two go on from, one of them with a piece behind it


@pytest.mark.parametrize("rows", [None, [7, 12, 13, 15, 16, 19]], ids=["all ask", "some ask"])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("sizes", [(128, 192), (2, 3)], ids=["one block each", "several blocks"])
def test_pieces_read_what_is_before_them(rows, window, sizes, monkeypatch):
    monkeypatch.setattr(cut, "STEP", 2)
    monkeypatch.setattr(cut, "ROWS", sizes[0])
    monkeypatch.setattr(cut, "MOST_ROWS", sizes[1])
    torch.manual_seed(0)
    ends = [sum(PIECES[: place + 1]) for place in range(len(PIECES))]
    q, k, v = (torch.randn(ends[-1], heads, 8, requires_grad=True) for heads in (4, 2, 2))
    chains = [[0], [0, 1], [0, 2], [0, 2, 3], [4]]
    expected = torch.zeros(0, 4, 8)
    for place, chain in enumerate(chains):  # each chain as a document of its own
        own = torch.cat([torch.arange(ends[piece] - PIECES[piece], ends[piece]) for piece in chain])
        keys, values = (each[own].repeat_interleave(2, dim=1) for each in (k, v))
        age = torch.arange(len(own))[:, None] - torch.arange(len(own))
        scores = torch.einsum("qhe,khe->hqk", q[own], keys) * SCALE
        weights = scores.masked_fill((age < 0) | (age >= (window or 99)), float("-inf")).softmax(-1)
        expected = torch.cat([expected, torch.einsum("hqk,khe->qhe", weights, values)[-PIECES[place] :]])
    asked = slice(None) if rows is None else rows
    blocks = blocks_of(PIECES, window, rows, PARENTS)
    with torch.no_grad():
        attention = Causal(blocks, 4, 2, q)
        found, held = attention.forward(q[asked] * SCALE, k, v)
        incoming = torch.randn_like(found)
        dscaled, *others = attention.backward(incoming, held)
    torch.testing.assert_close(found, expected[asked])
    dq, dk, dv = torch.autograd.grad(expected[asked], [q, k, v], incoming)
    for one, two in zip((dscaled * SCALE, *others), (dq[asked], dk, dv), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("offset", [0, 9])
def test_sixteen_bits_do_not_round_scores(offset):
    """Of 200 tokens whose keys have an offset, as with a bias, so that scores are around 80 or 0; both kinds of sums in 32 bits."""
    torch.manual_seed(0)
    q, k, v, incoming = (torch.randn(200, heads, 64) for heads in (6, 2, 2, 6))
    q, k = 0.125 * (q + offset / 8), k + offset
    q, k, v, incoming = (each.bfloat16() for each in (q, k, v, incoming))
    blocks = blocks_of((200,), None)
    attention = Causal(blocks, 6, 2, q.float())
    exact, held = attention.forward(q.float(), k.float(), v.float())
    wanted = attention.backward(incoming.float(), held)
    attention = Causal(blocks, 6, 2, q)
    rounded, held = attention.forward(q, k, v)
    assert (rounded.float() - exact).norm() / exact.norm() < 0.004  # half of a bit, of 8
    for one, two in zip(attention.backward(incoming, held), wanted, strict=True):
        assert one.dtype == torch.bfloat16
        assert (one.float() - two).norm() / two.norm() < (0.03 if offset else 0.01)  # the offset cancels out in q's gradient

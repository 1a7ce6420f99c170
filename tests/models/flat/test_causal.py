"""Attention over documents laid end to end against the formula written out with a mask for all of them at once."""

import pytest
import torch

from llmft.models.flat import causal
from llmft.models.flat.causal import attend, attend_backward, blocks_of

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
    monkeypatch.setattr(causal, "ROWS", sizes[0])
    monkeypatch.setattr(causal, "MOST_ROWS", sizes[1])
    torch.manual_seed(0)
    total = sum(LENGTHS)
    q, k, v = (torch.randn(total, heads, 8, requires_grad=True) for heads in (4, num_key_heads, num_key_heads))
    asked = slice(None) if rows is None else rows
    expected = by_formula(q, k, v, window)[asked]
    blocks = blocks_of(LENGTHS, window, rows)
    with torch.no_grad():
        found, held = attend(q[asked] * SCALE, k, v, blocks)
        incoming = torch.randn_like(found)
        dscaled, *others = attend_backward(incoming, held, blocks)
    torch.testing.assert_close(found, expected)
    dq, dk, dv = torch.autograd.grad(expected, [q, k, v], incoming)
    for one, two in zip((dscaled * SCALE, *others), (dq[asked], dk, dv), strict=True):
        torch.testing.assert_close(one, two)


PIECES, PARENTS = (6, 2, 5, 3, 4), (-1, 0, 0, 2, -1)  # 6 tokens that two go on from, one of them with a piece behind it


@pytest.mark.parametrize("rows", [None, [7, 12, 13, 15, 16, 19]], ids=["all ask", "some ask"])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("sizes", [(128, 192), (2, 3)], ids=["one block each", "several blocks"])
def test_pieces_read_what_is_before_them(rows, window, sizes, monkeypatch):
    monkeypatch.setattr(causal, "STEP", 2)
    monkeypatch.setattr(causal, "ROWS", sizes[0])
    monkeypatch.setattr(causal, "MOST_ROWS", sizes[1])
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
        found, held = attend(q[asked] * SCALE, k, v, blocks)
        incoming = torch.randn_like(found)
        dscaled, *others = attend_backward(incoming, held, blocks)
    torch.testing.assert_close(found, expected[asked])
    dq, dk, dv = torch.autograd.grad(expected[asked], [q, k, v], incoming)
    for one, two in zip((dscaled * SCALE, *others), (dq[asked], dk, dv), strict=True):
        torch.testing.assert_close(one, two)


def test_blocks_leave_out_what_no_query_sees():
    """Of 400 tokens three blocks, each with the keys up to its last one: two thirds of all pairs instead of all."""
    blocks = blocks_of((400,), None)
    assert [block.rows for block in blocks] == [slice(0, 128), slice(128, 256), slice(256, 400)]
    assert [block.keys for block in blocks] == [(slice(0, 128),), (slice(0, 256),), (slice(0, 400),)]
    assert [block.hidden.shape[1] for block in blocks] == [127, 127, 143]  # all see the first key of their own block


def test_a_window_leaves_out_what_is_before_it():
    blocks = blocks_of((400,), 16)
    assert [block.keys for block in blocks] == [(slice(0, 128),), (slice(113, 257),), (slice(241, 401),)]


def test_sizes_are_few():
    """Of documents of 1 to 500 tokens: blocks of 128 queries or of 16 to 192, behind none or up to three of 128."""
    blocks = blocks_of(range(1, 501), None)
    assert {(len(block.hidden), block.shown) for block in blocks} <= {
        (rows, 128 * before + rows) for rows in range(16, 208, 16) for before in range(4)
    }


@pytest.mark.parametrize("offset", [0, 9])
def test_sixteen_bits_do_not_round_scores(offset):
    """Of 200 tokens whose keys have an offset, as with a bias, so that scores are around 80 or 0; both kinds of sums in 32 bits."""
    torch.manual_seed(0)
    q, k, v, incoming = (torch.randn(200, heads, 64) for heads in (6, 2, 2, 6))
    q, k = 0.125 * (q + offset / 8), k + offset
    q, k, v, incoming = (each.bfloat16() for each in (q, k, v, incoming))
    blocks = blocks_of((200,), None)
    exact, held = attend(q.float(), k.float(), v.float(), blocks)
    wanted = attend_backward(incoming.float(), held, blocks)
    rounded, held = attend(q, k, v, blocks)
    assert (rounded.float() - exact).norm() / exact.norm() < 0.004  # half of a bit, of 8
    for one, two in zip(attend_backward(incoming, held, blocks), wanted, strict=True):
        assert one.dtype == torch.bfloat16
        assert (one.float() - two).norm() / two.norm() < (0.03 if offset else 0.01)  # the offset cancels out in q's gradient


def test_blocks_of_long_documents_are_small(monkeypatch):
    monkeypatch.setattr(causal, "MOST_SCORES", 64 * 800)
    blocks = blocks_of((800, 40), None)
    assert [len(block.hidden) for block in blocks] == [64] * 11 + [96, 48]

"""Attention over documents laid end to end against the formula written out with a mask for all of them at once."""

import pytest
import torch

from llmft.models.flat.causal import attend, attend_backward, documents_of, documents_of_rows

LENGTHS = (4, 1, 9)
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


@pytest.mark.parametrize("rows", [None, [2, 3, 5, 9, 13], [0, 4]], ids=["all ask", "some ask", "none of the last document"])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("num_key_heads", [1, 2, 4])
def test_outputs_and_gradients(rows, window, num_key_heads):
    torch.manual_seed(0)
    total = sum(LENGTHS)
    q, k, v = (torch.randn(total, heads, 8, requires_grad=True) for heads in (4, num_key_heads, num_key_heads))
    asked = slice(None) if rows is None else rows
    expected = by_formula(q, k, v, window)[asked]
    documents = documents_of(LENGTHS, window, q) if rows is None else documents_of_rows(LENGTHS, rows, window, q)
    with torch.no_grad():
        found, held = attend(q[asked], k, v, documents, SCALE)
    torch.testing.assert_close(found, expected)
    incoming = torch.randn_like(found)
    dq, dk, dv = torch.autograd.grad(expected, [q, k, v], incoming)
    for one, two in zip(attend_backward(incoming, held, documents, SCALE), (dq[asked], dk, dv), strict=True):
        torch.testing.assert_close(one, two)


PIECES, PARENTS = (6, 2, 5, 3, 4), (-1, 0, 0, 2, -1)  # 6 tokens that two go on from, one of them with a piece behind it


@pytest.mark.parametrize("rows", [None, [7, 12, 13, 15, 16, 19]], ids=["all ask", "some ask"])
@pytest.mark.parametrize("window", [None, 3])
def test_pieces_read_what_is_before_them(rows, window):
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
    documents = (
        documents_of(PIECES, window, q, PARENTS) if rows is None else documents_of_rows(PIECES, rows, window, q, PARENTS)
    )
    with torch.no_grad():
        found, held = attend(q[asked], k, v, documents, SCALE)
    torch.testing.assert_close(found, expected[asked])
    incoming = torch.randn_like(found)
    dq, dk, dv = torch.autograd.grad(expected[asked], [q, k, v], incoming)
    for one, two in zip(attend_backward(incoming, held, documents, SCALE), (dq[asked], dk, dv), strict=True):
        torch.testing.assert_close(one, two)

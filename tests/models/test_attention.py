"""Self-attention against softmax(QK^T/sqrt(d))V written out."""

import pytest
import torch

from llmft.models.attention import UnsupportedAttention, ragged_attention

LENGTHS = (5, 1, 8)


def tensors(num_heads, num_key_heads, width=4):
    torch.manual_seed(0)
    size = sum(LENGTHS)
    query = torch.randn(1, num_heads, size, width, dtype=torch.float64)
    key, value = (torch.randn(1, num_key_heads, size, width, dtype=torch.float64) for _ in range(2))
    return query, key, value


def by_hand(query, key, value, scaling, sees):
    """One row at a time: which keys token i of a document sees is `sees(i, j)`."""
    out = torch.zeros(1, query.shape[2], query.shape[1], query.shape[3], dtype=torch.float64)
    group = query.shape[1] // key.shape[1]
    start = 0
    for length in LENGTHS:
        for head in range(query.shape[1]):
            for i in range(length):
                seen = [start + j for j in range(length) if sees(i, j)]
                scores = key[0, head // group, seen] @ query[0, head, start + i] * scaling
                weights = scores.exp() / scores.exp().sum()
                out[0, start + i, head] = weights @ value[0, head // group, seen]
        start += length
    return out


CASES = {
    "causal": ({}, lambda i, j: j <= i),
    "both ways": ({"is_causal": False}, lambda i, j: True),
    "window of 3": ({"sliding_window": 3}, lambda i, j: i - 3 < j <= i),
    "window of 3, both ways": ({"sliding_window": 3, "is_causal": False}, lambda i, j: abs(i - j) < 3),
    "window as long as the longest": ({"sliding_window": 8}, lambda i, j: j <= i),
}


@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1)], ids=["all heads", "grouped", "one key head"])
@pytest.mark.parametrize(("options", "sees"), CASES.values(), ids=CASES)
def test_is_the_formula(options, sees, heads, scaling):
    query, key, value = tensors(*heads)
    module = torch.nn.Module()
    found, _ = ragged_attention(module, query, key, value, None, document_lengths=LENGTHS, scaling=scaling, **options)
    expected = by_hand(query, key, value, 4**-0.5 if scaling is None else scaling, sees)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_module_says_whether_it_is_causal():
    query, key, value = tensors(2, 2)
    module = torch.nn.Module()
    module.is_causal = False
    found, _ = ragged_attention(module, query, key, value, None, document_lengths=LENGTHS)
    torch.testing.assert_close(found, by_hand(query, key, value, 0.5, lambda i, j: True))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "document lengths did not reach"),
        ({"document_lengths": (5, 1)}, "document lengths did not reach"),
        ({"document_lengths": LENGTHS, "softcap": 50.0}, "attention with softcap"),
        ({"document_lengths": LENGTHS, "s_aux": torch.zeros(2)}, "attention with s_aux"),
    ],
)
def test_refuses_what_it_does_not_compute(options, reason):
    with pytest.raises(UnsupportedAttention, match=reason):
        ragged_attention(torch.nn.Module(), *tensors(2, 2), None, **options)
    mask = torch.ones(1, 1, 14, 14)
    with pytest.raises(UnsupportedAttention):
        ragged_attention(torch.nn.Module(), *tensors(2, 2), mask, document_lengths=LENGTHS)


def test_dropout_is_applied():
    query, key, value = tensors(2, 2)
    found, _ = ragged_attention(
        torch.nn.Module(), query, key, torch.ones_like(value), None, document_lengths=LENGTHS, dropout=0.5
    )
    assert not torch.allclose(found, torch.ones_like(found))  # without it every average of ones is one

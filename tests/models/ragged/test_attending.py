"""Attention of documents of many lengths against the formula written out for each of them, in float64."""

import pytest
import torch

from llmft.models.ragged import attending
from llmft.models.ragged.attending import Attending, groups_of

HEADS = 3
QUERIES, KEYS = (4, 21, 1, 6, 20, 33, 0, 9, 18), (7, 21, 40, 8, 17, 3, 5, 2, 19)


def tensor(*shape):
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


def by_formula(q, k, v, queries, keys, bias):
    parts = []
    for rows, given, values in zip(q.split(queries), k.split(keys), v.split(keys), strict=True):
        asked, key, value = (each.unflatten(1, (HEADS, -1)).transpose(0, 1) for each in (rows, given, values))
        scores = asked @ key.transpose(1, 2)
        if bias is not None:
            scores = scores + bias[:, : scores.shape[1], : scores.shape[2]]
        parts.append((scores.softmax(-1) @ value).transpose(0, 1).flatten(1))
    return torch.cat(parts)


@pytest.mark.parametrize(
    ("most", "group"),
    [(1 << 16, 6000), (600, 6000), (1 << 16, 0), (600, 0), (1, 0)],
    ids=["all at once", "some of all at once", "all that are alike at once", "some at once", "one by one"],
)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("keys", [QUERIES, KEYS], ids=["self", "cross"])
def test_documents_of_many_lengths(monkeypatch, keys, biased, most, group):
    monkeypatch.setattr(attending, "GROUP_SCORES", group)
    monkeypatch.setattr(attending, "MOST_SCORES", most)
    torch.manual_seed(0)
    queries = tuple(count or 1 for count in QUERIES) if keys is QUERIES else QUERIES
    keys = tuple(count or 1 for count in keys)
    q, k, v = tensor(sum(queries), 12), tensor(sum(keys), 12), tensor(sum(keys), 12)
    bias = tensor(HEADS, max(queries), max(keys)) if biased else None
    expected = by_formula(q, k, v, queries, keys, bias)
    how = Attending(groups_of(queries, keys, HEADS, torch.float64), None if bias is None else bias.detach(), 0.0)
    incoming = torch.randn_like(expected)
    with torch.no_grad():
        found, held = how.forward(q, k, v)
        dbias = None if bias is None else torch.zeros_like(bias)
        gradients = how.backward(incoming, held, dbias)
    torch.testing.assert_close(found, expected)
    given = [each for each in (q, k, v, bias) if each is not None]
    wanted = torch.autograd.grad(expected, given, incoming)
    for one, two in zip((*gradients, dbias) if biased else gradients, wanted, strict=True):
        torch.testing.assert_close(one, two)


def test_documents_of_nearly_the_same_length_are_one_group():
    lengths = (117, 230, 124, 118, 3, 231)
    groups = groups_of(lengths, lengths, 2, torch.float32).each
    assert [(group.queries, group.keys, group.heads) for group in groups] == [(231, 231, 2 * 2), (128, 128, 2 * 3), (8, 8, 2)]


def test_short_documents_are_filled_up_where_that_costs_less_than_a_group():
    # 2 x (24 x 24 - 16 x 16) = 640 scores more; up to the one of 128 it would be 47,000
    lengths = (24, 16, 24, 16, 24, 128)
    groups = groups_of(lengths, lengths, 1, torch.float32).each
    assert [(group.queries, group.heads) for group in groups] == [(128, 1), (24, 5)]


def test_what_is_asked_of_long_and_short_documents_by_few_tokens_is_one_group():
    groups = groups_of((16, 16, 24), (184, 320, 200), 1, torch.float32).each
    assert [(group.queries, group.keys, group.heads) for group in groups] == [(24, 320, 3)]


def test_none_is_filled_up_to_a_document_that_it_is_not_computed_with():
    # 368 x 368 is more than a head has at once, and 8 more queries and keys are fewer scores than a group costs
    groups = groups_of((368, 360), (368, 360), 1, torch.float32).each
    assert [(group.queries, group.keys, group.heads) for group in groups] == [(368, 368, 1), (360, 360, 1)]


def test_what_a_head_has_at_once_is_bounded(monkeypatch):
    monkeypatch.setattr(attending, "MOST_SCORES", 2 * 24 * 24)
    groups = groups_of((24,) * 5, (24,) * 5, 1, torch.float32).each
    assert [group.heads for group in groups] == [2, 2, 1]

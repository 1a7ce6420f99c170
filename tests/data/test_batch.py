"""Batches: the shift within documents by hand, and against the usual padded computation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from llmft.data.batch import collate_decoder, collate_pair, cut, cut_padded, pad_stream
from llmft.data.encode import Encoded


def document(ids, mask, name="r"):
    return Encoded(name, np.array(ids, np.int32), np.array(mask, bool), None, "f:1", units=sum(map(bool, mask[1:])))


def test_by_hand():
    batch = collate_decoder([document([5, 6, 7, 8], [0, 0, 1, 1], "a"), document([9], [0], "b"), document([3, 4], [1, 1], "c")])
    assert batch.stream.tokens_N.tolist() == [5, 6, 7, 8, 9, 3, 4]
    assert batch.stream.positions_N.tolist() == [0, 1, 2, 3, 0, 0, 1]
    assert batch.stream.lengths == (4, 1, 2)
    assert batch.loss_rows_M.tolist() == [1, 2, 5]  # 6 predicts 7, 7 predicts 8, 3 predicts 4; nothing predicts 5, 9 or 3
    assert batch.targets_M.tolist() == [7, 8, 4]
    assert batch.row_ids == ("a", "b", "c")
    assert batch.units == 3
    assert batch.source is None
    assert {
        tensor.dtype for tensor in (batch.stream.tokens_N, batch.stream.positions_N, batch.loss_rows_M, batch.targets_M)
    } == {torch.int64}


def test_no_row_bears_loss():
    batch = collate_decoder([document([1, 2], [0, 0])])
    assert (batch.loss_rows_M.tolist(), batch.targets_M.tolist(), batch.units) == ([], [], 0)


def test_to():
    batch = collate_decoder([document([1, 2], [0, 1])]).to("meta")
    assert {batch.stream.tokens_N.device.type, batch.loss_rows_M.device.type, batch.targets_M.device.type} == {"meta"}


MASKED = st.lists(st.lists(st.tuples(st.integers(0, 10), st.booleans()), min_size=1, max_size=7), min_size=1, max_size=5)


@settings(deadline=None)
@given(MASKED)
def test_loss_equals_the_padded_one(documents):
    """A model without context (a table of logits) makes the textbook's padded, shifted, -100-masked loss comparable."""
    encoded = [document([token for token, _ in pairs], [mask for _, mask in pairs]) for pairs in documents]
    table = torch.randn(11, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = collate_decoder(encoded)
    found = cross_entropy(table[batch.stream.tokens_N][batch.loss_rows_M], batch.targets_M, reduction="sum")

    longest = max(map(len, encoded))
    ids = torch.zeros(len(encoded), longest, dtype=torch.int64)
    labels = torch.full((len(encoded), longest), -100)
    for row, item in enumerate(encoded):
        ids[row, : len(item)] = torch.from_numpy(item.ids.astype(np.int64))
        labels[row, : len(item)] = torch.where(torch.from_numpy(item.loss_mask), ids[row, : len(item)], -100)
    expected = cross_entropy(table[ids][:, :-1].reshape(-1, 11), labels[:, 1:].reshape(-1), reduction="sum")
    assert found.item() == pytest.approx(expected.item(), abs=1e-9)
    assert batch.units == int((labels[:, 1:] != -100).sum()) == sum(item.units for item in encoded)


def pair(source, ids, mask, name="r"):
    return Encoded(name, np.array(ids, np.int32), np.array(mask, bool), np.array(source, np.int32), "f:1", units=sum(mask))


def test_pairs_by_hand():
    batch = collate_pair([pair([5, 6, 1], [7, 8, 1], [1, 1, 1], "a"), pair([9], [4, 3, 1], [0, 1, 1], "b")], 2)
    assert (batch.source.tokens_N.tolist(), batch.source.lengths) == ([5, 6, 1, 9], (3, 1))
    # 2 starts; each row predicts the answer's token at its own place; the language 4, forced, is read and not predicted
    assert batch.stream.tokens_N.tolist() == [2, 7, 8, 2, 4, 3]
    assert batch.stream.positions_N.tolist() == [0, 1, 2, 0, 1, 2]
    assert batch.loss_rows_M.tolist() == [0, 1, 2, 4, 5]
    assert batch.targets_M.tolist() == [7, 8, 1, 3, 1]
    assert (batch.row_ids, batch.units) == (("a", "b"), 5)
    assert {each.dtype for each in (batch.stream.tokens_N, batch.loss_rows_M, batch.targets_M)} == {torch.int64}


def test_an_answer_without_tokens_is_a_mistake_of_ours():
    with pytest.raises(AssertionError, match="an answer without tokens"):
        collate_pair([pair([5], [], [])], 2)


def test_padding_is_told_by_length():
    stream = collate_pair([pair([5, 0, 0], [1], [1]), pair([9], [1], [1])], 2).source
    tokens, mask = pad_stream(stream, 0)
    assert tokens.tolist() == [[5, 0, 0], [9, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]  # a real token may be the pad token
    assert {tokens.dtype, mask.dtype} == {torch.int64}


def lengths(micro_batches):
    return [[len(item) for item in micro_batch] for micro_batch in micro_batches]


def test_cut_by_hand():
    items = [document([0] * length, [1] * length, str(number)) for number, length in enumerate([2, 9, 3, 3, 1, 20])]
    assert lengths(cut(items, 9)) == [[20], [9], [3, 3, 2, 1]]
    assert lengths(cut(items, 8)) == [[20], [9], [3, 3], [2, 1]]  # two for the short ones, as even as they can be
    assert lengths(cut(items, 10**9)) == [[20, 9, 3, 3, 2, 1]]
    assert lengths(cut([], 8)) == []
    assert [item.id for item in cut(items, 10**9)[0]] == ["5", "1", "2", "3", "0", "4"]  # equal lengths keep their order


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=9), st.integers(30, 60))
def test_no_other_cut_in_this_order_is_as_few_and_more_even(sizes, micro_tokens):
    """Against all ways to divide the documents, longest first, into neighbours."""
    items = [document([0] * size, [1] * size, str(number)) for number, size in enumerate(sizes)]
    found = [sum(batch) for batch in lengths(cut(items, micro_tokens))]
    ordered, best = sorted(sizes, reverse=True), {}
    for ends in range(2 ** (len(sizes) - 1)):
        stops = [place + 1 for place in range(len(sizes) - 1) if ends >> place & 1] + [len(sizes)]
        sums = [sum(ordered[start:stop]) for start, stop in zip([0, *stops], stops, strict=False)]
        best[len(sums)] = min(best.get(len(sums), 10**9), max(sums))
    fewest = min(count for count, largest in best.items() if largest <= micro_tokens)
    assert len(found) == fewest
    assert max(found) <= best[fewest] + 1  # sought to one token


def test_cut_counts_both_streams():
    item = Encoded("r", np.zeros(2, np.int32), np.ones(2, bool), np.zeros(3, np.int32), "f:1", units=2)
    assert lengths(cut([item, item, item], 10)) == [[5, 5], [5]]


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), max_size=20), st.integers(1, 40))
def test_cut_keeps_every_document_within_the_budget(sizes, micro_tokens):
    items = [document([0] * size, [1] * size, str(number)) for number, size in enumerate(sizes)]
    micro_batches = cut(items, micro_tokens)
    assert sorted(item.id for batch in micro_batches for item in batch) == sorted(item.id for item in items)
    assert all(sum(map(len, batch)) <= micro_tokens or len(batch) == 1 for batch in micro_batches)


def test_cut_padded_by_hand():
    sizes = [(3, 1), (9, 1), (3, 4), (9, 9), (1, 1)]
    items = [pair([0] * source, [0] * answer, [1] * answer, str(number)) for number, (source, answer) in enumerate(sizes)]
    found = [[item.id for item in batch] for batch in cut_padded(items, 20)]
    # 2 x (9 + 9) is too much; 2 x (9 + 4) too; 3 x (3 + 4) as well, so there are two of short ones: at most 2 x (3 + 1)
    assert found == [["3"], ["1"], ["2"], ["0", "4"]]
    assert [[item.id for item in batch] for batch in cut_padded(items, 10**6)] == [["3", "1", "2", "0", "4"]]
    assert cut_padded([], 5) == []


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), max_size=20), st.integers(1, 80))
def test_cut_padded_keeps_what_is_read_within_the_budget(sizes, micro_tokens):
    items = [pair([0] * source, [0] * answer, [1] * answer, str(number)) for number, (source, answer) in enumerate(sizes)]
    micro_batches = cut_padded(items, micro_tokens)
    assert sorted(item.id for batch in micro_batches for item in batch) == sorted(item.id for item in items)
    for batch in micro_batches:
        read = len(batch) * (max(len(item.source_ids) for item in batch) + max(len(item.ids) for item in batch))
        assert read <= micro_tokens or len(batch) == 1

"""The token cache: what goes in comes out, in little memory, and survives damage and company."""

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.data import encode
from llmft.data.encode import FILES, Encoded, TokenCache, cache_key, written
from llmft.data.spool import cached


def decoder(number, length=5, answer=2):
    ids = np.arange(number, number + length, dtype=np.int32)
    return Encoded(
        f"id-{number}",
        ids,
        np.arange(length) >= length - answer,
        None,
        f"f.jsonl:{number + 1}",
        min(answer, length - 1),
        number,
    )


def pair(number):
    ids = np.array([7, 8, 9][: number + 1], np.int32)
    return Encoded(f"é{number}", ids, np.ones(len(ids), bool), np.arange(number + 2, dtype=np.int32), f"f:{number}", len(ids))


def made(folder, items):
    """A cache of these documents, each of an example of its own."""
    return cached(folder.parent, folder.name, items, lambda item: [item])


def same(one, two):
    for name in ("ids", "loss_mask", "source_ids"):
        left, right = getattr(one, name), getattr(two, name)
        if not ((left is None and right is None) or (left.dtype == right.dtype and np.array_equal(left, right))):
            return False
    facts = ("id", "where", "units", "source_cut", "labels", "second")
    return all(getattr(one, name) == getattr(two, name) for name in facts)


def labelled(number):
    """A pair of texts whose label is two classes of several, and a document that is left out of training."""
    ids = np.arange(4 + number, dtype=np.int32)
    return Encoded(f"l{number}", ids, np.zeros(len(ids), bool), None, "f:1", number % 2, labels=(0.0, 1.5), second=number + 2)


@pytest.mark.parametrize("make", [decoder, pair, labelled])
def test_round_trip(tmp_path, make):
    items = [make(number) for number in range(3)]
    made(tmp_path / "c", items)
    found = TokenCache(tmp_path / "c")
    assert len(found) == 3
    assert all(map(same, found, items))
    assert same(found[2], items[2])
    for row in (3, -1):
        with pytest.raises(IndexError):
            found[row]


def test_lengths_and_units(tmp_path):
    made(tmp_path / "d", [decoder(0, 5, 2), decoder(1, 3, 3)])
    found = TokenCache(tmp_path / "d")
    # a decoder's first token is predicted from nothing: 3 tokens with loss make 2 units
    assert (found.lengths.tolist(), found.units.tolist()) == ([5, 3], [2, 2])
    made(tmp_path / "p", [pair(0), pair(2)])
    found = TokenCache(tmp_path / "p")
    assert (found.lengths.tolist(), found.units.tolist()) == ([2 + 1, 4 + 3], [1, 3])
    assert [len(item) for item in found] == [3, 7]


def test_no_documents(tmp_path):
    found = made(tmp_path / "k", [])
    assert (len(found), found.lengths.tolist(), found.units.tolist()) == (0, [], [])


def test_streams_may_not_mix(tmp_path):
    with pytest.raises(AssertionError, match="f:1: not as many streams"):
        made(tmp_path / "c", [decoder(0), pair(1)])
    assert not (tmp_path / "c").exists()
    with pytest.raises(AssertionError, match="f:1: not as many streams"):
        written([pair(1)], dict.fromkeys(FILES, 0) | {"units.i64": 8})


def test_key():
    base = cache_key(data="x", limits={"a": 1, "b": None})
    assert len(base) == 64
    assert cache_key(limits={"b": None, "a": 1}, data="x") == base
    assert base not in {cache_key(data="y", limits={"a": 1, "b": None}), cache_key(data="x", limits={"a": 2, "b": None})}
    with pytest.raises(TypeError):
        cache_key(data=object())


def test_memory_stays_flat_and_arrays_stay_on_disk(tmp_path):
    def make():
        for number in range(5_000):
            yield decoder(number, length=1000)

    tracemalloc.start()
    found = made(tmp_path / "k", make())
    assert found[4_999].ids[999] == 4_999 + 999
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "k" / "ids.i32").stat().st_size == 20_000_000
    assert peak_bytes < 4_000_000
    with pytest.raises(ValueError, match="read-only"):
        found[0].ids[0] = 1


@settings(max_examples=20, deadline=None)  # each example waits for the disk
@given(st.lists(st.tuples(st.lists(st.integers(0, 2**31 - 1), max_size=6), st.text(max_size=4)), max_size=6))
def test_any_documents(tmp_path_factory, documents):
    items = [
        Encoded(name, np.array(ids, np.int32), np.array([token % 2 == 0 for token in ids], bool), None, name, len(ids))
        for ids, name in documents
    ]
    folder = tmp_path_factory.mktemp("cache") / "c"
    made(folder, items)
    assert all(map(same, TokenCache(folder), items))
    assert all(json.loads(line) for line in (folder / "facts.jsonl").read_bytes().splitlines())


@pytest.mark.parametrize("block", [1, 2, 3, 4, 100])
@pytest.mark.parametrize("make", [decoder, pair, labelled])
def test_what_is_read_in_blocks_is_what_there_is(tmp_path, monkeypatch, make, block):
    monkeypatch.setattr(encode, "BLOCK", block)
    items = [make(number) for number in range(3)] + [make(1)]
    found = made(tmp_path / "c", items)
    rows = [place for place, item in enumerate(items) if item.units]
    assert found.lengths.tolist() == [len(item) for item in items]
    assert found.rows_with_loss().tolist() == rows
    cuts = [items[place].source_cut for place in rows]
    assert found.sums() == (sum(item.units for item in items), sum(cut > 0 for cut in cuts), sum(cuts))
    assert (found.lengths.dtype, found.rows_with_loss().dtype) == (np.int32, np.uint32)


@pytest.mark.parametrize(
    ("mask", "tokens", "bearing", "ids", "carried"),
    [
        ("0000011111", 6, 2, "456789", "000011"),
        ("0000011111", 6, 9, "456789", "011111"),
        ("0011100000", 4, 2, "1234", "0011"),  # what follows the last token with loss is not read
        ("1111111111", 20, 3, "0123456789", "0000000111"),
        ("0000000000", 3, 2, "789", "000"),
    ],
)
def test_the_tail_of_a_document(mask, tokens, bearing, ids, carried):
    bits = [np.array([each == "1" for each in row], np.bool_) for row in (mask, carried)]
    tail = Encoded("a", np.arange(10, dtype=np.int32), bits[0], None, "f:1", units=9).tail(tokens, bearing)
    assert "".join(map(str, tail.ids)) == ids
    assert tail.loss_mask.tolist() == bits[1].tolist()
    assert tail.units == carried[1:].count("1")

"""The token cache: what goes in comes out, in little memory, and survives damage and company."""

import json
import multiprocessing
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.data.encode import Encoded, TokenCache, cache_key, cached, write_cache
from llmft.runs import durable


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
    write_cache(tmp_path / "c", iter(items))
    found = TokenCache(tmp_path / "c")
    assert len(found) == 3
    assert all(map(same, found, items))
    assert same(found[2], items[2])
    for row in (3, -1):
        with pytest.raises(IndexError):
            found[row]


def test_lengths_and_units(tmp_path):
    write_cache(tmp_path / "d", [decoder(0, 5, 2), decoder(1, 3, 3)])
    found = TokenCache(tmp_path / "d")
    # a decoder's first token is predicted from nothing: 3 tokens with loss make 2 units
    assert (found.lengths.tolist(), found.units.tolist()) == ([5, 3], [2, 2])
    write_cache(tmp_path / "p", [pair(0), pair(2)])
    found = TokenCache(tmp_path / "p")
    assert (found.lengths.tolist(), found.units.tolist()) == ([2 + 1, 4 + 3], [1, 3])
    assert [len(item) for item in found] == [3, 7]


def test_no_documents(tmp_path):
    found = cached(tmp_path, "k", lambda: [])
    assert (len(found), found.lengths.tolist(), found.units.tolist()) == (0, [], [])


def test_existing_folder_is_not_written_over(tmp_path):
    write_cache(tmp_path / "c", [decoder(0)])
    with pytest.raises(FileExistsError):
        write_cache(tmp_path / "c", [decoder(1)])
    assert TokenCache(tmp_path / "c")[0].id == "id-0"


def test_streams_may_not_mix(tmp_path):
    with pytest.raises(AssertionError, match="f:1: not as many streams"):
        write_cache(tmp_path / "c", [decoder(0), pair(1)])
    assert not (tmp_path / "c").exists()


def test_nothing_is_made_twice(tmp_path):
    cached(tmp_path, "k", lambda: [decoder(0)])
    assert cached(tmp_path, "k", lambda: pytest.fail("made again"))[0].id == "id-0"
    assert cached(tmp_path, "other", lambda: [decoder(1)])[0].id == "id-1"


def test_failure_leaves_nothing(tmp_path):
    def make():
        yield decoder(0)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        cached(tmp_path, "k", make)
    assert [path.name for path in tmp_path.iterdir()] == ["k.lock"]
    assert len(cached(tmp_path, "k", lambda: [decoder(0)])) == 1


@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "manifest"])
def test_damage_is_noticed_and_repaired(tmp_path, damage):
    cached(tmp_path, "k", lambda: [decoder(0), decoder(1)])
    path = tmp_path / "k" / ("manifest.json" if damage == "manifest" else "ids.i32")
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        content[8] ^= 1
        path.write_bytes(content[:-4] if damage == "cut" else content)
    found = cached(tmp_path, "k", lambda: [decoder(0), decoder(1)])
    assert all(map(same, found, [decoder(0), decoder(1)]))
    assert durable.verify(tmp_path / "k") == []


def build(root, started, results):
    started.wait()

    def make():
        for number in range(200):
            yield decoder(number)
        Path(root, f"made-{multiprocessing.current_process().pid}").touch()

    found = cached(Path(root), "k", make)
    results.put((len(found), found[199].id))


def test_two_processes_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    started, results = context.Event(), context.Queue()
    workers = [context.Process(target=build, args=(str(tmp_path), started, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    started.set()
    assert [results.get(timeout=30) for _ in workers] == [(200, "id-199")] * 4
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert len(list(tmp_path.glob("made-*"))) == 1


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
    found = cached(tmp_path, "k", make)
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
    write_cache(folder, items)
    assert all(map(same, TokenCache(folder), items))
    assert all(json.loads(line) for line in (folder / "facts.jsonl").read_bytes().splitlines())

"""Caches in the making: nothing is tokenised twice, whatever ends the process and wherever, and damage is never believed."""

import errno
import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from llmft.data import spool
from llmft.data.encode import FILES, Encoded
from llmft.data.spool import JOURNAL, cached
from llmft.errors import DataError, LlmftError, Stopped
from llmft.runs import durable, rehearsal

CONTEXT = multiprocessing.get_context("fork")
EXAMPLES = range(30)


def encode(number):
    """No document, one, or windows of one text."""
    for window in range(number % 3):
        ids = np.arange(number, number + 4 + window, dtype=np.int32)
        yield Encoded(f"é{number}", ids, ids % 2 == 0, ids[: number % 2], f"f.jsonl:{number}", 1 + window, number, (0.5,))


@pytest.fixture(autouse=True)
def _marks_after_every_example(monkeypatch):
    monkeypatch.setattr(spool, "MARK_S", 0.0)


@pytest.fixture
def whole(tmp_path):
    """The bytes of a cache that was made without interruption."""
    cached(tmp_path / "whole", "k", EXAMPLES, encode)
    return content(tmp_path / "whole" / "k")


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Counted:
    """Encodes, and counts how often each example was."""

    def __init__(self, stop_at=None, error=None):
        self.seen = []
        self.stop_at, self.error = stop_at, error

    def __call__(self, number):
        if number == self.stop_at:
            raise self.error
        self.seen.append(number)
        return encode(number)


def test_nothing_is_made_twice(tmp_path):
    first, second = Counted(), Counted()
    cached(tmp_path, "k", EXAMPLES, first)
    assert cached(tmp_path, "k", EXAMPLES, second)[0].id == "é1"
    assert (first.seen, second.seen) == ([*EXAMPLES], [])
    assert cached(tmp_path, "other", [4], second)[0].id == "é4"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k", "k.lock", "other", "other.lock"]


@pytest.mark.parametrize("error", [RuntimeError("half way"), Stopped(15), KeyboardInterrupt(), MemoryError()], ids=repr)
@pytest.mark.parametrize("mark_s", [0.0, 1e9])
def test_interrupted_goes_on_where_it_stopped(tmp_path, whole, monkeypatch, error, mark_s):
    monkeypatch.setattr(spool, "MARK_S", mark_s)
    first, second = Counted(17, error), Counted()
    with pytest.raises(type(error)):
        cached(tmp_path, "k", EXAMPLES, first)
    cached(tmp_path, "k", EXAMPLES, second)
    assert first.seen + second.seen == [*EXAMPLES]
    assert content(tmp_path / "k") == whole
    assert not (tmp_path / "k.partial").exists()


def test_rows_that_cannot_be_used_leave_nothing(tmp_path):
    with pytest.raises(DataError):
        cached(tmp_path, "k", EXAMPLES, Counted(17, DataError("f.jsonl:17: too long")))
    assert [path.name for path in tmp_path.iterdir()] == ["k.lock"]


def test_a_full_disk_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv(rehearsal.FAILPOINT, "write:9+:ENOSPC:k.partial")
    with pytest.raises(LlmftError, match=r"k\.partial: cannot be written: No space left on device .*repeat the command"):
        cached(tmp_path, "k", EXAMPLES, encode)


def interrupted(folder):
    with pytest.raises(RuntimeError):
        cached(folder, "k", EXAMPLES, Counted(25, RuntimeError()))
    return folder / "k.partial"


@pytest.mark.parametrize("name", [*FILES, JOURNAL])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "grown", "empty"])
def test_a_damaged_spool_is_believed_as_far_as_it_is_whole(tmp_path, whole, name, damage):
    path = interrupted(tmp_path) / name
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    if damage == "gone":
        path.unlink()
    else:
        data[middle] ^= 1
        path.write_bytes({"flip": data, "cut": data[:middle], "grown": path.read_bytes() + b"\0" * 9, "empty": b""}[damage])
    again = Counted()
    cached(tmp_path, "k", EXAMPLES, again)
    assert content(tmp_path / "k") == whole
    if damage in ("flip", "cut"):
        assert 0 < again.seen[0] < 25
    elif damage == "grown":
        assert again.seen[0] == 25
    else:
        assert again.seen[0] in (0, 1)  # the first example has no document, and so needs no file


def test_a_journal_that_lies_is_not_believed(tmp_path, whole):
    journal = interrupted(tmp_path) / JOURNAL
    for change in ({"examples": 29}, {"sizes": {}}, {"sizes": None}, {"sha256": "0" * 64}):
        lines = journal.read_text().splitlines()
        journal.write_text("\n".join([*lines[:-1], json.dumps(json.loads(lines[-1]) | change)]) + "\n")
        assert len(spool.whole_marks(journal.parent)[0]) == len(lines)  # START and all but the last
        journal.write_text("\n".join(lines) + "\n")
    journal.write_text("[" * 100_000 + "\n")
    assert spool.whole_marks(journal.parent) == ([spool.START], 0)
    cached(tmp_path, "k", EXAMPLES, encode)
    assert content(tmp_path / "k") == whole


@pytest.mark.parametrize("name", [*FILES, durable.MANIFEST])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_damaged_cache_is_made_anew(tmp_path, whole, name, damage):
    cached(tmp_path, "k", EXAMPLES, encode)
    path = tmp_path / "k" / name
    data = bytearray(path.read_bytes())
    path.unlink()
    if damage != "gone":
        data[8] ^= 1
        path.write_bytes(data[:-4] if damage == "cut" else data)
    cached(tmp_path, "k", EXAMPLES, encode)
    assert content(tmp_path / "k") == whole


def build(root, started, results):
    started.wait()

    def slow(number):
        Path(root, f"{number}-{os.getpid()}").touch()
        return encode(number)

    found = cached(Path(root, "c"), "k", EXAMPLES, slow)
    results.put((len(found), found[0].id))


def test_processes_at_once_share_what_one_makes(tmp_path):
    started, results = CONTEXT.Event(), CONTEXT.Queue()
    workers = [CONTEXT.Process(target=build, args=(str(tmp_path), started, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    started.set()
    assert [results.get(timeout=30) for _ in workers] == [(30, "é1")] * 4
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert len(list(tmp_path.glob("*-*"))) == len(EXAMPLES)


def test_without_locks_each_makes_its_own(tmp_path, whole, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(spool.fcntl, "flock", refuse)
    (tmp_path / "k.partial").mkdir()
    (tmp_path / "k.partial" / JOURNAL).write_text("of another process")
    cached(tmp_path, "k", EXAMPLES, encode)
    assert content(tmp_path / "k") == whole
    assert (tmp_path / "k.partial" / JOURNAL).read_text() == "of another process"

"""Tokenising, killed and starved: what is done is not done again, and the cache ends in the bytes of one that was left alone."""

import json
import multiprocessing
import os
import random
import time
from pathlib import Path

import crash_lab
import numpy as np
import pytest

from llmft.data import spool
from llmft.data.encode import Encoded
from llmft.data.spool import cached
from llmft.errors import LlmftError
from llmft.runs import durable, rehearsal

CONTEXT = multiprocessing.get_context("fork")
EXAMPLES = range(12)


def encode(number):
    """No document, one, or windows of one text."""
    for window in range(number % 3):
        ids = np.arange(number, number + 4 + window, dtype=np.int32)
        yield Encoded(f"{number}", ids, ids % 2 == 0, ids[: number % 2], f"f.jsonl:{number}", 1 + window, number, (0.5,))


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def whole(tmp_path):
    """The bytes of a cache that was made without interruption."""
    cached(tmp_path / "whole", "k", EXAMPLES, encode)
    return content(tmp_path / "whole" / "k")


def filled(folder, log, failpoint=None, kill_at=None):
    """Fill the cache in a process of its own that marks after each example and logs what it encodes; return its exit code."""

    def logged(number):
        if number == kill_at:
            os.kill(os.getpid(), 9)
        with log.open("a") as out:
            out.write(f"{number}\n")
        return encode(number)

    def work():
        spool.MARK_S = 0.0
        if failpoint:
            os.environ[rehearsal.FAILPOINT] = failpoint
        try:
            cached(folder, "k", EXAMPLES, logged)
        except LlmftError:
            os._exit(1)
        os._exit(0)

    process = CONTEXT.Process(target=work)
    process.start()
    process.join(60)
    return process.exitcode


@pytest.mark.parametrize("step", [29, pytest.param(2, marks=pytest.mark.torture)])
@pytest.mark.parametrize("how", ["kill", "ENOSPC", "EIO", "short"])
def test_each_operation_on_the_disk_fails_once(tmp_path, whole, how, step):
    """The next process goes on from the last mark: at most one example, that of the mark that failed, is encoded again."""
    ended, number = [], 1 + ("kill", "ENOSPC", "EIO", "short").index(how) % step
    folder, log = tmp_path / "c", tmp_path / "log"
    while not ended or ended[-1] != 0:
        log.unlink(missing_ok=True)
        ended.append(filled(folder, log, f"*:{number}:{how}"))
        assert filled(folder, log) == 0
        assert content(folder / "k") == whole
        encoded = [int(line) for line in log.read_text().split()]
        assert sorted(set(encoded)) == [*EXAMPLES]
        assert len(encoded) <= len(EXAMPLES) + 1
        durable.remove(folder / "k")
        number += step
    assert number > 200  # as many operations as that are there
    assert set(ended[:-1]) <= {-9 if how == "kill" else 1, 0}
    assert ended.count(0) < 10  # what cannot be removed at the end does no harm


@pytest.mark.parametrize("rounds", [3, pytest.param(30, marks=pytest.mark.torture)])
def test_killed_between_two_examples_again_and_again(tmp_path, whole, rounds):
    print("seed 5")
    draw, log, kills = random.Random(5), tmp_path / "log", 0
    for number in range(rounds):
        folder, done = tmp_path / str(number), 0
        log.unlink(missing_ok=True)
        while done < len(EXAMPLES):
            done += draw.randrange(1, 5)
            kills += filled(folder, log, kill_at=done) == -9
        assert filled(folder, log) == 0
        assert [int(line) for line in log.read_text().split()] == [*EXAMPLES]  # a mark after each: none is encoded twice
        assert content(folder / "k") == whole
    assert kills > 3 * rounds


def slowed(words, folder, env, log, encoded):
    """In the forked process: a command that takes a while for each row, and marks often."""
    from llmft.tasks.learn.text_decoder import TextDecoder

    spool.MARK_S = 0.02
    plain = TextDecoder.encode

    def slow(self, example):
        time.sleep(0.002)
        with open(encoded, "a") as out:
            out.write(example.id + "\n")
        return plain(self, example)

    TextDecoder.encode = slow
    crash_lab._command(words, folder, env, log)


@pytest.mark.parametrize(
    ("number", "seed"),
    [(9, 1), *(pytest.param(number, seed, marks=pytest.mark.torture) for number in (9, 15) for seed in range(2, 6))],
)
def test_the_command_goes_on_where_tokenising_stopped(tmp_path, tiny, number, seed):
    """Killed, or asked to stop, at random while it tokenises; the finished cache is that of a run left alone."""
    print(f"seed {seed}")
    draw, count = random.Random(f"{seed} {number}"), 300
    rows = [{"source": f"the sum of {n} and {n * n}", "target": str(n + n * n)} for n in range(count)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        *("train", f"model.name={tiny / 'gpt2'}", "task=summarization", "task.data.train=t.jsonl", "task.data.holdout=0"),
        *(
            "task.source={source}",
            "task.target={target}",
            "training.max_steps=1",
            "training.baseline=false",
            "hardware.threads=1",
        ),
    ]

    def begin(cache: str) -> crash_lab.Command:
        log = tmp_path / f"{cache}.log"
        arguments = (words, str(tmp_path), {"LLMFT_CACHE": str(tmp_path / cache)}, str(log), str(tmp_path / f"{cache}.rows"))
        process = crash_lab.CONTEXT.Process(target=slowed, args=arguments)
        process.start()
        return crash_lab.Command(process, log)

    kills = 0
    for _ in range(4):
        command = begin("killed")
        seen = len(lines(tmp_path / "killed.rows"))
        wanted = seen + draw.randrange(20, 80)
        assert command.wait_until(lambda wanted=wanted: len(lines(tmp_path / "killed.rows")) >= wanted), command.said()
        command.kill(number)
        kills += 1
        code = command.wait()
        assert code == (-9 if number == 9 else 75), command.said()
    for cache in ("killed", "alone"):
        command = begin(cache)
        assert command.wait() == 0, command.said()
    encoded = lines(tmp_path / "killed.rows")
    assert set(encoded) == {str(n) for n in range(count)} == set(lines(tmp_path / "alone.rows"))
    # A mark each 0.02 s, and a row takes 0.002 s at least: what is lost at a kill, a stop does not lose.
    assert len(encoded) <= count + kills * (20 if number == 9 else 1)
    [left], [right] = (
        [each for each in (tmp_path / cache / "tokens").iterdir() if each.is_dir()] for cache in ("killed", "alone")
    )
    assert (left.name, content(left)) == (right.name, content(right))


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []

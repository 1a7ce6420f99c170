"""A run that says running while nobody holds its lock is dead."""

import dataclasses
import json
import os

import pytest

from llmft.errors import LlmftError
from llmft.runs import status
from llmft.runs.lock import Lock
from llmft.runs.status import Status

RUNNING = Status("running", pid=1, host="h", start="2026-01-01T00:00:00+00:00", fingerprint="f", command=["llmft"], step=7)


def test_file(tmp_path):
    status.write(tmp_path, RUNNING)
    assert json.loads((tmp_path / "status.json").read_text()) == {
        "state": "running",
        "pid": 1,
        "host": "h",
        "start": "2026-01-01T00:00:00+00:00",
        "fingerprint": "f",
        "command": ["llmft"],
        "step": 7,
        "exit": None,
        "end": None,
        "error": None,
        "schema_version": 1,
    }


def test_running_or_dead(tmp_path):
    assert status.read(tmp_path) is None
    status.write(tmp_path, RUNNING)
    assert status.read(tmp_path).state == "dead"
    assert status.read_as_written(tmp_path).state == "running"
    lock = Lock(tmp_path)
    lock.acquire()
    assert status.read(tmp_path) == RUNNING
    lock.release()
    assert status.read(tmp_path).state == "dead"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"state": "done"}', "\0\0"])
def test_not_a_status(tmp_path, text):
    (tmp_path / "status.json").write_text(text)
    with pytest.raises(LlmftError, match=r"status.json: not a run's status .*move the folder away or name another output_dir"):
        status.read(tmp_path)


def test_fields_of_a_later_version_are_passed_over(tmp_path):
    status.write(tmp_path, RUNNING)
    values = json.loads((tmp_path / "status.json").read_text()) | {"later": 1}
    (tmp_path / "status.json").write_text(json.dumps(values))
    assert status.read_as_written(tmp_path) == RUNNING


def test_advice(tmp_path):
    assert status.advice(tmp_path) == "nothing says how it stands. Name another run."
    lock = Lock(tmp_path)
    lock.acquire()
    status.write(tmp_path, RUNNING)
    assert status.advice(tmp_path) == "it is running as process 1 on h, saved at step 7. Wait for it."
    lock.release()
    assert status.advice(tmp_path) == "it died, saved at step 7. Go on with it: llmft"
    status.write(tmp_path, dataclasses.replace(RUNNING, state="stopped", command=["llmft", "train", "a b"]))
    assert status.advice(tmp_path) == "it was stopped, saved at step 7. Go on with it: llmft train 'a b'"
    status.write(tmp_path, dataclasses.replace(RUNNING, state="diverged", error="loss is nan"))
    assert status.advice(tmp_path) == "it diverged (loss is nan). Name another run, or start it anew."
    status.write(tmp_path, dataclasses.replace(RUNNING, state="done"))
    assert status.advice(tmp_path) == "it is finished, but somebody has taken it away. Name another run."


def test_a_process_of_that_number_that_is_another_does_not_count(tmp_path):
    status.write(tmp_path, dataclasses.replace(RUNNING, pid=os.getpid()))
    assert status.read(tmp_path).state == "dead"

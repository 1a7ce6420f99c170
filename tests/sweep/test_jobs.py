"""Sweeps around the real Hydra, and single jobs: what is recorded, what is run again."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_app import sweep, train, trouble

from llmft.errors import DataError, LlmftError, RunInUse, Stopped
from llmft.runs import status
from llmft.runs.lock import Lock
from llmft.runs.status import Status
from llmft.sweep import jobs, rows


def outcome(sweep_dir: Path) -> dict:
    return json.loads((sweep_dir / "sweep.json").read_text())


def attempts(sweep_dir: Path) -> list[int]:
    """How often each job was run in its present directory."""
    return [len((folder / "attempts").read_text().split()) for folder in sorted(sweep_dir.glob("[0-9][0-9][0-9]"))]


def sweeps(root: Path) -> list[Path]:
    return sorted((root / "outputs").glob("*"))


def test_one_failing_job_does_not_stop_the_others(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trouble(tmp_path, **{"2,0": "data"})
    sweep_dir, code = sweep(tmp_path, "x=1,2,3", "y=0,1", "fail_below=-7")
    assert code == 1
    found = outcome(sweep_dir)
    assert found["command"] == ["tiny", "x=1,2,3", "y=0,1", "fail_below=-7"]
    assert [row["exit"] for row in found["rows"]] == [0, 0, 4, 0, 0, 0]
    assert [row["state"] for row in found["rows"]] == ["done", "done", "failed", "done", "done", "done"]
    # (x - 3)^2 + (y - 1)^2 by hand
    assert [row["objective"] and row["objective"]["value"] for row in found["rows"]] == [5, 4, None, 1, 1, 0]
    assert found["rows"][2]["error"] == "rows.jsonl:7: no column"
    assert found["rows"][2]["overrides"] == ["x=2", "y=0", "fail_below=-7"]
    assert (found["best"], found["complete"]) == (5, False)
    assert [Path(row["output_dir"]).name for row in found["rows"]] == ["000", "001", "002", "003", "004", "005"]
    said = capfd.readouterr()
    assert said.out == ""
    table = said.err[said.err.index("\nsweep ") :].splitlines()[1:]
    assert table == [
        f"sweep {sweep_dir}: 5 of 6 jobs done",
        "all jobs: fail_below=-7",
        "job    x  y  state   exit  square",
        "000    1  0  done    0      5.000",
        "001    1  1  done    0      4.000",
        "002    2  0  failed  4          -",
        "003    2  1  done    0      1.000",
        "004    3  0  done    0      1.000",
        "005 *  3  1  done    0      0.000",
        "002: rows.jsonl:7: no column",
        f"* best: square 0.000 (lower is better), {sweep_dir}/005",
        "the same command again runs what did not end with 0",
    ]


def test_repeating_runs_only_what_failed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trouble(tmp_path, **{"2,0": "data", "3,1": "bug"})
    first, code = sweep(tmp_path, "x=1,2,3", "y=0,1")
    assert code == 1
    assert "KeyError: 'a bug'" in capfd.readouterr().err
    assert status.read(first / "005").exit == 1  # type: ignore[union-attr]
    trouble(tmp_path)
    again, code = sweep(tmp_path, "x=1,2,3", "y=0,1")
    assert (again, code) == (first, 0)
    assert attempts(first) == [1, 1, 1, 1, 1, 1]
    assert sorted(path.name for path in first.glob("*.failed-*")) == ["002.failed-1", "005.failed-1"]
    assert outcome(first)["complete"] is True
    assert capfd.readouterr().err.count("(done before)") == 4
    third, code = sweep(tmp_path, "x=1,2,3", "y=0,1")
    assert third != first  # a finished sweep is not gone on with
    assert code == 0


def test_failing_again_gets_the_next_number(tmp_path: Path) -> None:
    trouble(tmp_path, **{"2,0": "early"})
    for _ in range(3):
        sweep_dir, code = sweep(tmp_path, "x=1,2")
        assert code == 1
    assert sorted(path.name for path in sweep_dir.glob("001*")) == ["001", "001.failed-1", "001.failed-2"]
    assert [row["exit"] for row in outcome(sweep_dir)["rows"]] == [0, 2]


def test_a_signal_ends_the_sweep_and_the_same_command_goes_on(tmp_path: Path) -> None:
    trouble(tmp_path, **{"2,0": "stop"})
    with pytest.raises(Stopped):
        sweep(tmp_path, "x=1,2,3")
    (sweep_dir,) = sweeps(tmp_path)
    assert [(row["state"], row["exit"]) for row in outcome(sweep_dir)["rows"]] == [("done", 0), ("stopped", 75)]
    assert outcome(sweep_dir)["complete"] is False
    trouble(tmp_path)
    assert sweep(tmp_path, "x=1,2,3") == (sweep_dir, 0)
    assert (sweep_dir / "001" / "attempts").read_text() == "new\nstopped\n"
    assert attempts(sweep_dir) == [1, 2, 1]


def test_a_signal_between_two_jobs_leaves_the_sweep_unfinished(tmp_path: Path) -> None:
    sweep_dir = jobs.choose(str(tmp_path), ["tiny"])
    (tmp_path / "trouble.json").write_text("{}")
    config = {"x": 1, "y": 1, "higher": False, "fail_below": -100, "trouble": str(tmp_path / "trouble.json")}
    jobs.run_job(sweep_dir, 0, ["x=1"], config, lambda output: train(config, Path(output)))
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        jobs.finish(sweep_dir)
    assert outcome(sweep_dir)["complete"] is False
    assert jobs.choose(str(tmp_path), ["tiny"]) == sweep_dir
    assert jobs.finish(sweep_dir) == 0


def test_a_killed_sweep_goes_on(tmp_path: Path) -> None:
    trouble(tmp_path, **{"2,0": "kill"})
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import tiny_app, pathlib;"
    code += f"tiny_app.sweep(pathlib.Path({str(tmp_path)!r}), 'x=1,2,3')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 137
    (sweep_dir,) = sweeps(tmp_path)
    assert [row.state for row in rows.read(sweep_dir)] == ["done", "dead"]
    trouble(tmp_path)
    assert sweep(tmp_path, "x=1,2,3") == (sweep_dir, 0)
    assert attempts(sweep_dir) == [1, 2, 1]


@pytest.mark.parametrize("other", [["tiny", "x=1,2"], ["tiny", "x=1,2,3", "training.resume=never"]])
def test_another_command_gets_another_directory(tmp_path: Path, other: list[str]) -> None:
    for command in (["tiny", "x=1,2,3"], other):
        first = jobs.choose(str(tmp_path), command)
        (first / "something").touch()  # so that finish leaves it
        jobs._locks.pop(first).release()
    assert jobs.choose(str(tmp_path), ["tiny", "x=1,2,3"]) != first
    if "training.resume=never" in other:
        assert jobs.choose(str(tmp_path), other) != first


def test_a_running_sweep_is_not_joined(tmp_path: Path) -> None:
    first = jobs.choose(str(tmp_path), ["tiny"])
    assert jobs.choose(str(tmp_path), ["tiny"]) != first


def test_where_no_directory_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "root").touch()
    with pytest.raises(LlmftError, match=r"root/.*-sweep: cannot be written: Not a directory"):
        jobs.choose(str(tmp_path / "root"), ["tiny"])


def test_a_sweep_without_jobs_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="Could not override 'zz'"):
        sweep(tmp_path, "zz=1,2")
    assert sweeps(tmp_path) == []


def test_no_token_reaches_the_disk(tmp_path: Path) -> None:
    token = "hf_" + "a1B2c3D4e5F6g7H8"
    sweep_dir, _ = sweep(tmp_path, "x=1,2", f"token={token}")
    texts = [path.read_text() for path in sweep_dir.rglob("*") if path.is_file()]
    assert len(texts) >= 8
    assert not any(token in text for text in texts)
    assert outcome(sweep_dir)["rows"][0]["overrides"] == ["x=1", "token=hf_[redacted]"]


@pytest.mark.parametrize("kind", ["data", "bug"])
def test_joblib(tmp_path: Path, kind: str) -> None:
    trouble(tmp_path, **{"2,0": kind})
    sweep_dir, code = sweep(tmp_path, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "x=1,2,3", "y=0,1")
    assert code == 1
    assert [row["exit"] for row in outcome(sweep_dir)["rows"]] == [0, 0, 4 if kind == "data" else 1, 0, 0, 0]


def test_joblib_brings_a_signal_home(tmp_path: Path) -> None:
    trouble(tmp_path, **{"1,0": "signal"})
    with pytest.raises(Stopped) as caught:
        sweep(tmp_path, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "x=1,2")
    assert caught.value.exit_code == 75


# Single jobs.


def work_returning(value: float | None):
    return lambda output: value


def work_raising(error: BaseException):
    def work(output: str) -> None:
        raise error

    return work


@pytest.fixture
def sweep_dir(tmp_path: Path):
    path = jobs.choose(str(tmp_path), ["tiny"])
    yield path
    if path in jobs._locks:
        jobs._locks.pop(path).release()


def test_a_changed_configuration_is_run_again(sweep_dir: Path) -> None:
    assert jobs.run_job(sweep_dir, 3, ["x=1"], {"x": 1, "z": 0}, work_returning(1.0)) == 1.0
    (sweep_dir / "003" / "status.json").stat()
    ran: list[str] = []

    def work(output: str) -> float:
        ran.append(output)
        return 2.0

    jobs.run_job(sweep_dir, 3, ["x=1"], {"x": 1, "z": 0}, work)
    assert ran == []
    assert jobs.run_job(sweep_dir, 3, ["x=1"], {"x": 1, "z": 5}, work) == 2.0
    assert ran == [str(sweep_dir / "003")]
    assert (sweep_dir / "003.done-1" / "status.json").exists()


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (DataError("d.csv:3: empty"), 4, "d.csv:3: empty"),
        (LlmftError("disk full"), 1, "disk full"),
        (ValueError("no"), 1, "ValueError: no"),
        (SystemExit(3), 1, "SystemExit: 3"),
    ],
)
def test_a_job_without_a_run_directory_gets_a_status(sweep_dir: Path, error: BaseException, code: int, text: str) -> None:
    assert jobs.run_job(sweep_dir, 0, [], {}, work_raising(error)) is None
    found = status.read(sweep_dir / "000")
    assert found is not None
    assert (found.state, found.exit, found.error, found.command) == ("failed", code, text, ["tiny"])


def write_status(run_path: Path, state: str, code: int | None) -> Status:
    run_path.mkdir()
    written = Status(state, os.getpid(), socket.gethostname(), "2026-01-01T00:00:00+00:00", "f" * 16, ["x"], exit=code)
    status.write(run_path, written)
    return written


def test_what_the_run_recorded_itself_stays(sweep_dir: Path) -> None:
    def misses_its_gate(output: str) -> None:
        write_status(Path(output), "done", 3)
        raise type("Gate", (LlmftError,), {"exit_code": 3})("rougeL 10, gate 30")

    jobs.run_job(sweep_dir, 0, [], {}, misses_its_gate)
    assert rows.read(sweep_dir)[0].state == "done"
    assert rows.read(sweep_dir)[0].exit == 3
    assert jobs.finish(sweep_dir) == 1


def test_a_stopped_run_that_fails_before_it_is_opened_can_still_go_on(sweep_dir: Path) -> None:
    rows.write_job(sweep_dir, rows.Job(0, [], jobs.provenance.fingerprint(config={})))
    before = write_status(sweep_dir / "000", "stopped", 75)
    jobs.run_job(sweep_dir, 0, [], {}, work_raising(DataError("the disk with the data is not mounted")))
    assert status.read(sweep_dir / "000") == before
    seen: list[Status | None] = []
    jobs.run_job(sweep_dir, 0, [], {}, lambda output: seen.append(status.read(Path(output))))
    assert seen == [before]


def test_a_run_in_use_is_left_alone(sweep_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    running = write_status(sweep_dir / "000", "running", None)
    lock = Lock(sweep_dir / "000")
    lock.acquire()
    jobs.run_job(sweep_dir, 0, [], {}, work_raising(RunInUse("000 is in use by process 7")))
    assert status.read(sweep_dir / "000") == running
    assert jobs.finish(sweep_dir) == 1
    lock.release()
    assert re.search(r"^000 +running +- *$", capfd.readouterr().err, re.MULTILINE)


def test_signals_pass_a_job(sweep_dir: Path) -> None:
    for error in (Stopped(signal.SIGTERM), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            jobs.run_job(sweep_dir, 0, [], {}, work_raising(error))

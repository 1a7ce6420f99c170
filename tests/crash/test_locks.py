"""Sixteen processes race for one run directory: one has it, and the others are told who; a reader is told what is true."""

import json
import os
import re
import signal
import socket
from pathlib import Path

import crash_lab
import crash_runs
import pytest

from llmft.runs import lock, status

RACERS = 16


@pytest.fixture(scope="module")
def words(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A training of two steps."""
    data = tmp_path_factory.mktemp("data")
    crash_runs.write_rows(data)
    found = crash_runs.training("classification", tiny / "bert", data, "adapter=none")
    found = [word for word in found if not word.startswith(("task.data.test", "task.data.validation", "training.max_steps"))]
    return [*found, "training.max_steps=2", "task.data.holdout=0"]


def race(words: list[str], folder: Path, number: int, refused: int) -> dict[int, tuple[int, str]]:
    """Let so many processes run the command, of which so many are to be refused; return exit code and output by pid."""
    logs = folder / "race"
    logs.mkdir()
    env = {"LLMFT_CACHE": str(folder / "cache"), "LAB_RACE": f"{logs}:{number}:{refused}"}
    code, said = crash_lab.run(words, folder, env)
    assert code == 0, said
    codes = {int(pid): code for pid, code in json.loads((logs / "race.json").read_text()).items()}
    assert len(codes) == number
    return {pid: (code, (logs / f"{place}.log").read_text()) for place, (pid, code) in enumerate(sorted(codes.items()))}


def one_has_it(words: list[str], folder: Path) -> None:
    ended = race([*words, "output_dir=run"], folder, RACERS, RACERS - 1)
    run = folder / "run"
    found = status.read(run)
    assert found is not None
    assert (found.state, found.exit, found.host) == ("done", 0, socket.gethostname())
    assert sorted(code for code, _ in ended.values()) == [0] + [2] * (RACERS - 1)
    assert ended[found.pid][0] == 0
    told = re.compile(
        rf"error: run is in use by process {found.pid} on {re.escape(found.host)} since \d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00\. "
        r"Wait for it, stop it, or name another output_dir\.\n"
    )
    for pid, (code, said) in ended.items():
        assert code == 0 or told.fullmatch(said), f"{pid}: {said}"
        assert f'"pid": {pid}' not in (run / "status.json").read_text() or pid == found.pid
    assert (run / "train.log").read_text().count("\nPlan\n") == 1
    assert [path for path in run.rglob(".*") if path.name != ".lock"] == []
    assert (folder / "latest").readlink() == Path("run")


def one_goes_on(words: list[str], folder: Path) -> None:
    """Who loses the stopped run starts anew, as nobody named a folder."""
    command = crash_lab.start([*words, "output_root=outputs"], folder, {"LAB_SIGNAL": f"{signal.SIGTERM.value}@1+1"})
    assert command.wait() == 75, command.said()
    (stopped,) = (path for path in (folder / "outputs").iterdir() if not path.is_symlink())
    ended = race([*words, "output_root=outputs"], folder, number=6, refused=0)
    assert [code for code, _ in ended.values()] == [0] * 6
    firsts = [said.splitlines()[0] for _, said in ended.values()]
    assert sum(line.startswith(f"resuming {stopped} from step ") for line in firsts) == 1, firsts
    runs = [path for path in (folder / "outputs").iterdir() if not path.is_symlink()]
    assert {line.removeprefix("run ") for line in firsts if line.startswith("run ")} == {str(path) for path in runs} - {
        str(stopped)
    }
    assert len(runs) == 6
    found = {path: status.read(path) for path in runs}
    assert {each.state for each in found.values() if each} == {"done"}
    assert {each.pid for each in found.values() if each} == set(ended)
    assert (folder / "outputs" / "latest").resolve() in runs


@pytest.mark.parametrize("place", range(2))
def test_one_of_sixteen_has_the_run_directory(place: int, words: list[str], tmp_path: Path) -> None:
    one_has_it(words, tmp_path)


@pytest.mark.torture
@pytest.mark.parametrize("place", range(50))
def test_one_of_sixteen_has_the_run_directory_at_full_size(place: int, words: list[str], tmp_path: Path) -> None:
    one_has_it(words, tmp_path)


def test_one_of_several_goes_on_with_a_stopped_run(words: list[str], tmp_path: Path) -> None:
    one_goes_on(words, tmp_path)


@pytest.mark.torture
@pytest.mark.parametrize("place", range(5))
def test_one_of_several_goes_on_with_a_stopped_run_at_full_size(place: int, words: list[str], tmp_path: Path) -> None:
    one_goes_on(words, tmp_path)


def test_what_a_reader_sees_of_a_run_that_lives_and_of_one_that_was_killed(words: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    endless = [*(word for word in words if not word.startswith("training.max_steps")), "training.max_steps=100000"]
    command = crash_lab.start([*endless, "output_dir=run", "training.save_every=5"], tmp_path)
    command.wait_for(run / "checkpoints" / "step-000005")
    living = status.read(run)
    assert living is not None
    assert (living.state, living.pid, living.exit, living.end) == ("running", command.pid, None, None)
    holder = lock.holder(run)
    assert holder is not None
    assert (holder["pid"], holder["host"]) == (command.pid, socket.gethostname())
    log = tmp_path / "predict.log"
    rows = next(word for word in words if word.startswith("task.data.train=")).partition("=")[2]
    predict = ["predict", "run=run", f"input={rows}", "output=predictions.jsonl"]
    asked = crash_lab.start(predict, tmp_path, log=log)
    assert asked.wait() == 2
    advice = rf"it is running as process {command.pid} on {re.escape(socket.gethostname())}, saved at step \d+\. Wait for it\."
    assert re.fullmatch(rf"error: run={run}: the run has no model yet: {advice}\n", asked.said()), asked.said()
    assert crash_lab.run([*endless, "output_dir=run"], tmp_path / ".")[0] == 2
    command.kill(signal.SIGKILL)
    assert command.wait() == -signal.SIGKILL
    dead = status.read(run)
    assert dead is not None
    assert dead.state == "dead"
    assert dead.step in crash_runs.saved_steps(run) or dead.step + 5 in crash_runs.saved_steps(run)
    # The number of a process that is gone may be another's by now; the lock knows that it is.
    values = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(values | {"pid": os.getpid()}))
    again = status.read(run)
    assert again is not None
    assert again.state == "dead"
    asked = crash_lab.start(predict, tmp_path, log=log)
    assert asked.wait() == 2
    advice = f"it died, saved at step {dead.step}. Go on with it: llmft train task=classification "
    assert asked.said().startswith(f"error: run={run}: the run has no model yet: {advice}")

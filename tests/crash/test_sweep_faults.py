"""Sweeps with faulty jobs, stopped and killed ones: what is good is done once, what is not is listed, repeated and repaired."""

import json
import random
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crash_lab
import crash_runs
import pytest
from crash_lab import Command

from llmft.runs import status

SWEEP_S = 1800
"""Longest time for a hundred jobs, each of a second on an idle machine."""
FAULTS = {
    "missing": (4, "failed"),
    "bad": (4, "failed"),
    "column": (4, "failed"),
    "diverged": (5, "diverged"),
    "metric": (2, "failed"),
    "gate": (3, "done"),
}
"""What is wrong with a job -> its exit code and state."""
FAULTY_SETTINGS = {
    "diverged": "optimizer: {lr: 1e30}",
    "metric": "training: {metric: nonsense}",
    "gate": "gate: {min: {accuracy: 101}}",
}


@dataclass
class Sweep:
    """A sweep over experiments in a folder of its own, one YAML a job."""

    folder: Path
    names: list[str]
    words: list[str]

    @property
    def path(self) -> Path:
        """The sweep's folder."""
        (found,) = self.folder.glob("outputs/*-sweep")
        return found

    @property
    def outcome(self) -> dict[str, Any]:
        """What sweep.json says."""
        return json.loads((self.path / "sweep.json").read_bytes())

    def start(self) -> Command:
        """Type the command."""
        return crash_lab.start(self.words, self.folder, {"LLMFT_CACHE": str(self.folder / "cache")})

    def ends(self, code: int) -> str:
        """Run the command to its end; return what it said."""
        command = self.start()
        assert command.wait(SWEEP_S) == code, command.said()
        return command.said()

    def starts(self) -> dict[str, str]:
        """When each job's run was begun, by its number."""
        found = {path.name: status.read(path) for path in sorted(self.path.glob("[0-9][0-9][0-9]"))}
        return {name: each.start for name, each in found.items() if each}


def write(folder: Path, tiny: Path, faults: dict[int, str], number: int, *settings: str) -> Sweep:
    """Make a sweep of so many jobs; `faults`: what is wrong with which."""
    crash_runs.write_rows(folder / "data")
    conf = folder / "conf" / "experiment"
    conf.mkdir(parents=True)
    for place in range(number):
        write_job(folder, place, faults.get(place))
    words = crash_runs.training("classification", tiny / "bert", folder / "data", "adapter=none", "training.max_steps=2")
    dropped = ("task.data.train=", "task.data.validation=", "training.max_steps=24", "optimizer.lr=")
    words = [*(word for word in words if not word.startswith(dropped)), "task.data.holdout=0", "task.data.max_test=2"]
    names = [f"e{place:03d}" for place in range(number)]
    words = ["train", "-m", "--config-dir", "conf", f"experiment={','.join(names)}", *words[1:], *settings]
    return Sweep(folder, names, words)


def write_job(folder: Path, place: int, fault: str | None) -> None:
    """Write the experiment and the training rows of a job."""
    rows = (folder / "data" / "train.jsonl").read_text().splitlines(keepends=True)[:8]
    path = folder / "data" / f"{place:03d}.jsonl"
    if fault == "bad":
        rows[3] = '{"text": "red", "label"\n'
    if fault == "column":
        rows = [row.replace('"label"', '"lable"') for row in rows]
    if fault == "missing":
        path.unlink(missing_ok=True)
    else:
        path.write_text("".join(rows))
    data = f"# @package _global_\nseed: {place}\ntask: {{data: {{train: {path}}}}}\n"
    (folder / "conf" / "experiment" / f"e{place:03d}.yaml").write_text(f"{data}{FAULTY_SETTINGS.get(fault or '', '')}\n")


def some_are_faulty(folder: Path, tiny: Path, number: int, faults: dict[int, str]) -> None:
    sweep = write(folder, tiny, faults, number)
    said = sweep.ends(1)
    found = sweep.outcome
    assert [row["number"] for row in found["rows"]] == list(range(number))
    for row in found["rows"]:
        fault = faults.get(row["number"])
        assert (row["exit"], row["state"]) == ((0, "done") if fault is None else FAULTS[fault]), row
        assert (row["error"] is None) is (fault is None)
        run = status.read(folder / row["output_dir"])
        assert run is not None
        assert (run.exit, run.state) == (row["exit"], row["state"])
    assert found["complete"] is False
    assert f"{number - len(faults)} of {number} jobs done" in said
    assert [int(each) for each in re.findall(r"^(\d{3}): ", said, re.MULTILINE)] == sorted(faults)
    starts = sweep.starts()
    said = sweep.ends(1)  # nothing was repaired
    assert said.count("(done before)") == number - len(faults)
    changed = {name for name, start in sweep.starts().items() if start != starts[name]}
    assert changed == {f"{place:03d}" for place in faults}
    assert [(row["exit"], row["state"]) for row in sweep.outcome["rows"]] == [
        (row["exit"], row["state"]) for row in found["rows"]
    ]
    for place in faults:
        write_job(folder, place, None)
    said = sweep.ends(0)
    assert said.count("(done before)") == number - len(faults)
    assert {row["exit"] for row in sweep.outcome["rows"]} == {0}
    assert sweep.outcome["complete"] is True
    assert {name: start for name, start in sweep.starts().items() if int(name) not in faults} == {
        name: start for name, start in starts.items() if int(name) not in faults
    }


def stopped_and_killed(folder: Path, tiny: Path, number: int, kinds: list[signal.Signals], seed: int) -> None:
    """Stop a sweep by each of the signals, at random moments; then let it end."""
    sweep, draw = write(folder, tiny, {}, number), random.Random(seed)
    done: dict[str, str] = {}
    codes: set[int] = set()
    for kind in kinds:
        command = sweep.start()
        wanted = min(len(done) + 1, number - 1)
        assert command.wait_until(command.hears)
        assert command.wait_until(lambda wanted=wanted: len(list(folder.glob("outputs/*-sweep/jobs/*.json"))) >= wanted)
        time.sleep(draw.uniform(0, 0.8))
        command.kill(kind)
        code = command.wait()
        if code == 0:  # all jobs were done before it came
            break
        codes.add(code)
        assert code == {signal.SIGINT: 130, signal.SIGKILL: -signal.SIGKILL}.get(kind, 75), command.said()
        assert sweep.outcome["complete"] is False
        found = {path.name: status.read(path) for path in sweep.path.glob("[0-9][0-9][0-9]")}
        for name, each in found.items():
            if each is None:  # killed before its status was there
                assert kind == signal.SIGKILL
            elif name in done:
                assert each.start == done[name], "a job that was done ran again"
            else:
                ends = {("done", 0), ("dead", None), *(("stopped", code) for code in codes)}
                assert (each.state, each.exit) in ends, (name, each)
                assert each.state != "dead" or -signal.SIGKILL in codes
        done = {name: each.start for name, each in found.items() if each and each.state == "done"}
        if "jobs done" in command.said():  # it got as far as to write the outcome
            states = {row["number"]: row["state"] for row in sweep.outcome["rows"]}
            assert all(states[int(name)] == each.state for name, each in found.items() if each)
    sweep.ends(0)
    assert [row["exit"] for row in sweep.outcome["rows"]] == [0] * number
    assert done.items() <= sweep.starts().items()
    assert not [path for path in sweep.path.rglob(".*") if path.name != ".lock"]
    assert sweep.outcome["complete"] is True


def test_three_of_six_are_faulty(tiny: Path, tmp_path: Path) -> None:
    some_are_faulty(tmp_path, tiny, 6, {1: "missing", 3: "diverged", 4: "metric"})


@pytest.mark.torture
def test_ten_of_a_hundred_are_faulty(tiny: Path, tmp_path: Path) -> None:
    kinds = [*FAULTS, "missing", "bad", "diverged", "metric"]
    some_are_faulty(tmp_path, tiny, 100, dict(zip(random.Random(4).sample(range(100), 10), kinds, strict=True)))


def test_a_sweep_that_was_stopped_and_killed_goes_on(tiny: Path, tmp_path: Path) -> None:
    stopped_and_killed(tmp_path, tiny, 3, [signal.SIGTERM, signal.SIGKILL], seed=0)


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(1, 5))
def test_a_sweep_that_was_stopped_and_killed_goes_on_at_full_size(seed: int, tiny: Path, tmp_path: Path) -> None:
    kinds = [signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP, signal.SIGKILL, signal.SIGUSR1]
    stopped_and_killed(tmp_path, tiny, 6, random.Random(seed).sample(kinds, len(kinds)), seed)


@pytest.mark.torture
@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGKILL], ids=lambda kind: kind.name)
def test_processes_of_a_sweep_end_with_it(kind: signal.Signals, tiny: Path, tmp_path: Path) -> None:
    """joblib's processes save and stop, whether the sweep was told to stop or is simply gone."""
    joblib = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "training.max_steps=100000", "training.save_every=50")
    sweep = write(tmp_path, tiny, {}, 3, *joblib)
    sweep.words = [word for word in sweep.words if word != "training.max_steps=2"]
    command = sweep.start()

    def at_work() -> bool:
        return all(list(tmp_path.glob(f"outputs/*-sweep/{name}/checkpoints/step-*50")) for name in ("000", "001"))

    assert command.wait_until(at_work), command.said()
    runs = [sweep.path / name for name in ("000", "001")]
    pids = [found.pid for run in runs if (found := status.read(run))]
    assert command.pid not in pids
    command.kill(kind)
    assert command.wait() == (75 if kind == signal.SIGTERM else -signal.SIGKILL), command.said()
    until = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()], "left behind"
    for run in runs:
        found = status.read(run)
        assert found is not None
        assert (found.state, found.exit, found.error) == ("stopped", 75, "SIGTERM")
        assert found.step == crash_runs.saved_steps(run)[-1]
    assert not (sweep.path / "002").exists()

"""The commands as typed, through the command line and the shipped conf/; only the work itself is replaced."""

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from llmft.cli.main import main
from llmft.config.schema import EvalRun, TrainRun
from llmft.errors import DataError, Stopped
from llmft.reports.results import Metric, Objective, Results
from llmft.runs import signals
from llmft.runs.directory import claim

GRID = ["train", "-m", "optimizer.lr=1e-4,3e-4", "adapter.r=8,16"]


class Work:
    """Stands for train and evaluate. rougeL is 10 * r, minus 1 per 1e-4 of learning rate; `raises` may say otherwise."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.raises: Callable[[TrainRun], BaseException | None] = lambda run: None

    def train(self, run: TrainRun, command: list[str]) -> float:
        directory = claim(run.output_root, run.output_dir, "tiny", "f" * 16, run.training.resume, command)
        self.ran.append(f"{directory.path.name}{' resumed' if directory.resumed else ''}")
        if isinstance(error := self.raises(run), Stopped):
            directory.finish("stopped", error.exit_code)
            raise error
        if error is not None:
            directory.finish("failed", getattr(error, "exit_code", 1), str(error))
            raise error
        value = 10 * run.adapter.r - run.optimizer.lr * 1e4
        metric = Metric(value, None, None, 8, "tiny")
        Results("tiny", 1, "m", "test", 8, {"rougeL": metric}, objective=Objective("rougeL", value, True)).write(
            directory.path / "results.json"
        )
        directory.finish("done", 0)
        return value

    def evaluate(self, run: EvalRun, command: list[str]) -> None:
        assert run.output is not None
        self.ran.append(f"{Path(run.output).name} beams {run.generation.num_beams}")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    stand_in = Work()
    for name, function in (("train", stand_in.train), ("evaluate", stand_in.evaluate)):
        module = types.ModuleType(f"llmft.{name}")
        setattr(module, name, function)
        monkeypatch.setitem(sys.modules, f"llmft.{name}", module)
    monkeypatch.setattr(signals, "install", lambda: None)  # the test run keeps its own handlers
    monkeypatch.chdir(tmp_path)
    return stand_in


def sweep_json() -> dict:
    (path,) = Path("outputs").glob("*-sweep/sweep.json")
    return json.loads(path.read_text())


def test_a_grid_with_one_failure_and_its_repetition(work: Work) -> None:
    work.raises = lambda run: DataError("a.csv:1: bad") if (run.optimizer.lr, run.adapter.r) == (3e-4, 8) else None
    assert main(GRID) == 1
    assert work.ran == ["000", "001", "002", "003"]
    found = sweep_json()
    assert found["command"] == ["llmft", *GRID]
    assert [row["exit"] for row in found["rows"]] == [0, 0, 4, 0]
    assert [row["objective"] and row["objective"]["value"] for row in found["rows"]] == [79, 159, None, 157]
    assert found["best"] == 1
    work.ran.clear()
    work.raises = lambda run: None
    assert main(GRID) == 0
    assert work.ran == ["002"]


def test_stopped_and_gone_on_with(work: Work) -> None:
    work.raises = lambda run: Stopped(15) if run.optimizer.lr == 3e-4 else None
    assert main(GRID) == 75
    assert sweep_json()["complete"] is False
    work.raises = lambda run: None
    work.ran.clear()
    assert main(GRID) == 0
    assert work.ran == ["002 resumed", "003"]


def test_search_draws_whole_numbers_for_whole_numbers(work: Work) -> None:
    search = ["hydra/sweeper=search", "hydra.sweeper.n_trials=3", "optimizer.lr=tag(log,interval(1e-5,1e-3))"]
    assert main(["train", "-m", *search, "adapter.r=interval(4,64)"]) == 0
    ranks = [row["overrides"][1].removeprefix("adapter.r=") for row in sweep_json()["rows"]]
    assert len(ranks) == 3
    assert all(4 <= int(rank) <= 64 for rank in ranks)


def test_an_interval_needs_the_search(work: Work, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-m", "optimizer.lr=interval(1e-5,1e-3)"]) == 2
    said = capfd.readouterr().err
    assert said.startswith("error: optimizer.lr=interval(1e-5,1e-3): an interval has no values to go through one by one.")
    assert "hydra/sweeper=search" in said
    assert not Path("outputs").exists()


def test_eval(work: Work) -> None:
    assert main(["eval", "-m", "task=summarization", "model=t5_small", "generation.num_beams=1,4"]) == 0
    assert work.ran == ["000 beams 1", "001 beams 4"]
    assert [(row["state"], row["exit"]) for row in sweep_json()["rows"]] == [("done", 0), ("done", 0)]

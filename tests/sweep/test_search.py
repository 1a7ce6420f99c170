"""The search sweeper: it finds a known minimum, survives failing trials, goes on after an interruption."""

import json
import sys
from pathlib import Path

import optuna.distributions as od
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from tiny_app import sweep, trouble

from llmft.errors import ConfigError, Stopped
from llmft.sweep import search

SEARCH = "hydra/sweeper=search"


def overrides(sweep_dir: Path) -> list[list[str]]:
    return [json.loads(path.read_text())["overrides"] for path in sorted((sweep_dir / "jobs").glob("*.json"))]


@pytest.mark.parametrize("higher", [False, True])
def test_the_best_lies_near_the_optimum(tmp_path: Path, higher: bool) -> None:
    """Of (x - 3)^2 + (y - 1)^2 over [-20, 20] x {-9, 1, 11}: 25 blind draws come within 1 of x = 3 at y = 1 in a third of cases."""
    sweep_dir, code = sweep(
        tmp_path, SEARCH, "hydra.sweeper.n_trials=25", "x=interval(-20.0,20.0)", "y=-9,1,11", f"higher={higher}"
    )
    assert code == 0
    found = yaml.safe_load((sweep_dir / "best.yaml").read_text())
    assert abs(found["parameters"]["x"] - 3) < 1
    assert found["parameters"]["y"] == "1"
    square = (found["parameters"]["x"] - 3) ** 2
    assert found["objective"] == {"name": "square", "value": -square if higher else square, "higher_is_better": higher}
    assert found["job"] == json.loads((sweep_dir / "sweep.json").read_text())["best"]
    assert len(overrides(sweep_dir)) == 25
    assert len({tuple(job) for job in overrides(sweep_dir)}) == 25


def test_failing_trials_do_not_end_the_search(tmp_path: Path) -> None:
    sweep_dir, code = sweep(tmp_path, SEARCH, "hydra.sweeper.n_trials=8", "x=interval(-5.0,5.0)", "fail_below=0")
    exits = [row["exit"] for row in json.loads((sweep_dir / "sweep.json").read_text())["rows"]]
    assert code == 1
    assert len(exits) == 8
    assert set(exits) == {0, 2}
    assert yaml.safe_load((sweep_dir / "best.yaml").read_text())["parameters"]["x"] > 0


def test_a_search_in_which_everything_fails_ends_with_1(tmp_path: Path) -> None:
    sweep_dir, code = sweep(tmp_path, SEARCH, "hydra.sweeper.n_trials=3", "x=interval(-5.0,5.0)", "fail_below=50")
    assert code == 1
    assert len(overrides(sweep_dir)) == 3
    assert not (sweep_dir / "best.yaml").exists()


def test_joblib_runs_trials_side_by_side(tmp_path: Path) -> None:
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    sweep_dir, code = sweep(tmp_path, SEARCH, "hydra.sweeper.n_trials=5", *launcher, "x=interval(-5.0,5.0)", "fail_below=-1")
    rows = json.loads((sweep_dir / "sweep.json").read_text())["rows"]
    assert [row["number"] for row in rows] == [0, 1, 2, 3, 4]
    assert code == int(any(row["exit"] for row in rows))
    assert (sweep_dir / "best.yaml").exists()


def test_an_interrupted_search_goes_on(tmp_path: Path) -> None:
    arguments = [SEARCH, "hydra.sweeper.n_trials=12", "x=range(0,12)"]
    trouble(tmp_path, **{f"{x},0": "stop" for x in (2, 3, 4)})
    with pytest.raises(Stopped):
        sweep(tmp_path, *arguments)
    (sweep_dir,) = (tmp_path / "outputs").iterdir()
    before = overrides(sweep_dir)
    assert 1 <= len(before) < 12
    trouble(tmp_path)
    assert sweep(tmp_path, *arguments) == (sweep_dir, 0)
    after = overrides(sweep_dir)
    assert after[: len(before)] == before
    assert sorted(int(x.removeprefix("x=")) for (x,) in after) == list(range(12))
    attempts = [(sweep_dir / f"{number:03d}" / "attempts").read_text().split() for number in range(12)]
    assert attempts == [["new"]] * (len(before) - 1) + [["new", "stopped"]] + [["new"]] * (12 - len(before))


def test_a_search_stops_where_everything_has_been_tried(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sweep_dir, code = sweep(tmp_path, SEARCH, "hydra.sweeper.n_trials=10", "x=1,2", "y=0,1")
    assert code == 0
    assert sorted(overrides(sweep_dir)) == [["x=1", "y=0"], ["x=1", "y=1"], ["x=2", "y=0"], ["x=2", "y=1"]]
    assert "no untried combination found after 4 of 10 trials" in capfd.readouterr().err


def refused(tmp_path: Path, *arguments: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        sweep(tmp_path, SEARCH, *arguments)
    assert list((tmp_path / "outputs").iterdir()) == []
    return caught.value.problems


def test_without_optuna(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert refused(tmp_path, "x=interval(0,1)") == (
        "hydra/sweeper=search: optuna is not installed; the search needs it. Install it: pip install 'llmft[search]'",
    )


def test_nothing_to_search_over(tmp_path: Path) -> None:
    assert refused(tmp_path, "x=1") == (
        "hydra/sweeper=search: nothing to search over; expected at least one setting with several values."
        " Give one a range, such as optimizer.lr='tag(log,interval(1e-5,1e-3))', or a list of values.",
    )


def test_wrong_settings_are_told_together(tmp_path: Path) -> None:
    arguments = ["hydra.sweeper.n_trials=many", "hydra.sweeper.n_jobs=two", "hydra.sweeper.sampler=tpo", "x=1,2"]
    assert refused(tmp_path, *arguments) == (
        "hydra.sweeper.n_trials=many: expected a whole number, at least 1. Correct it.",
        "hydra.sweeper.n_jobs=two: expected a whole number; -1: one per core. Correct it.",
        "hydra.sweeper.sampler=tpo: no such sampler; there are tpe and random. Choose one.",
    )


def test_bounds_that_cannot_be_searched(tmp_path: Path) -> None:
    for bounds in ("tag(log,interval(0.0,1.0))", "interval(2.0,1.0)", "range(5,5)"):
        (problem,) = refused(tmp_path, f"x={bounds}")
        assert problem.startswith(f"x={bounds}: not a range that can be searched (")
        assert problem.endswith("expected a lower and a higher bound, both above 0 with tag(log,...). Correct the bounds.")


def test_a_misspelt_choice_is_found_before_the_first_trial(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="Could not find 'kind/c'"):
        sweep(tmp_path, SEARCH, "kind=a,c", "x=interval(0.0,1.0)")
    assert list((tmp_path / "outputs").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("f=interval(1,8)", od.FloatDistribution(1.0, 8.0)),
        ("f=tag(log,interval(1e-5,1e-3))", od.FloatDistribution(1e-5, 1e-3, log=True)),
        ("n=interval(1,8)", od.IntDistribution(1, 8)),
        ("n=tag(log,interval(1,8))", od.IntDistribution(1, 8, log=True)),
        ("n=range(4,17,4)", od.IntDistribution(4, 16, step=4)),
        ("f=range(0.0,1.0,0.25)", od.FloatDistribution(0.0, 0.75, step=0.25)),
        ("f=x,y", od.CategoricalDistribution(["x", "y"])),
        ("n=choice(8,16)", od.CategoricalDistribution(["8", "16"])),
    ],
)
def test_ranges(text: str, expected: od.BaseDistribution) -> None:
    config = OmegaConf.create({"f": 0.5, "n": 4})
    assert search._distribution(OverridesParser.create().parse_override(text), config) == expected

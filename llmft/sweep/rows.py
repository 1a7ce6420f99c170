"""What became of each job of a sweep, read from disk: jobs may have run in other processes, or in an earlier attempt."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llmft.errors import LlmftError
from llmft.reports import results
from llmft.reports.results import Objective
from llmft.runs import durable, status


@dataclass(frozen=True)
class Job:
    """One job as it was started, kept in jobs/NNN.json. `config`: SHA-256 of its resolved configuration."""

    number: int
    overrides: list[str]
    config: str


@dataclass(frozen=True)
class Row:
    """One line of the table. `exit` is null while a job runs and where it was killed; a score that is not finite is null."""

    number: int
    overrides: list[str]
    state: str
    exit: int | None
    error: str | None
    output_dir: str
    objective: Objective | None
    metrics: dict[str, float | None]


def folder(sweep_dir: Path, number: int) -> Path:
    """The run directory of one job."""
    return sweep_dir / f"{number:03d}"


def write_job(sweep_dir: Path, job: Job) -> None:
    """Note that a job starts, before it leaves any other trace."""
    path = _job_path(sweep_dir, job.number)
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.write_json(path, vars(job))


def read_job(sweep_dir: Path, number: int) -> Job | None:
    """The job as it was last started; None if it never was."""
    path = _job_path(sweep_dir, number)
    return Job(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def read(sweep_dir: Path) -> list[Row]:
    """Every job that was started, by number."""
    numbers = sorted(int(path.stem) for path in (sweep_dir / "jobs").glob("*.json"))
    return [row for number in numbers if (row := read_row(sweep_dir, number))]


def read_row(sweep_dir: Path, number: int) -> Row | None:
    """What became of one job; None if it was never started."""
    job = read_job(sweep_dir, number)
    if job is None:
        return None
    run_path = folder(sweep_dir, number)
    # No status: the process died, or was told to stop, before the run directory was made.
    state, code, error, objective, metrics = "stopped", None, None, None, {}
    try:
        if now := status.read(run_path):
            state, code, error = now.state, now.exit, now.error
        if (path := run_path / "results.json").exists():
            measured = results.read(path)
            objective, metrics = measured.objective, {name: metric.value for name, metric in measured.metrics.items()}
    except LlmftError as unreadable:
        error = error or str(unreadable)
    return Row(number, job.overrides, state, code, error, str(run_path), objective, metrics)


def best(rows: Sequence[Row]) -> Row | None:
    """The row with the best objective among those that ended with 0; None if they were judged by different things."""
    judged = [(row, row.objective) for row in rows if row.exit == 0 and row.objective and row.objective.value is not None]
    if len({(target.name, target.higher_is_better) for _, target in judged}) != 1:
        return None
    choose = max if judged[0][1].higher_is_better else min
    return choose(judged, key=lambda pair: pair[1].value or 0.0)[0]


def _job_path(sweep_dir: Path, number: int) -> Path:
    return sweep_dir / "jobs" / f"{number:03d}.json"

"""What a run measured, results.json: scores with intervals, the untuned model, baselines, gates, training and memory."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmft.config.schema import Gate
from llmft.errors import ConfigError, DataError
from llmft.metrics.score import Score
from llmft.runs import durable

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Metric:
    """One score of one model: the value, its 95 % interval (null: none), and how it was taken. A value that is not finite is null."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    signature: str
    higher_is_better: bool | None = True
    parts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, score: Score) -> "Metric":
        """The part of a score that goes into results.json; values per example go into predictions.jsonl."""
        return cls(score.value, score.low, score.high, score.n, score.signature, score.higher_is_better, dict(score.parts))


@dataclass(frozen=True)
class Difference:
    """Tuned minus untuned model on the same examples: the difference, its 95 % interval and p, by paired bootstrap."""

    difference: float
    low: float
    high: float
    p: float
    n: int


@dataclass(frozen=True)
class Objective:
    """The one number a sweep looks at."""

    name: str
    value: float | None
    higher_is_better: bool


@dataclass(frozen=True)
class GateResult:
    """One limit and whether it is kept. kind: min, max or max_drop; `value`: the score, or how far it got worse (max_drop)."""

    score: str
    kind: str
    limit: float
    value: float | None
    met: bool

    def sentence(self) -> str:
        """`rougeL is 27.1, gate.min.rougeL=30: not met`."""
        what = f"{self.score} got worse by" if self.kind == "max_drop" else f"{self.score} is"
        value = "not a finite number" if self.value is None else f"{self.value:.6g}"
        return f"{what} {value}, gate.{self.kind}.{self.score}={self.limit:g}: {'met' if self.met else 'not met'}"


@dataclass(frozen=True)
class TrainSummary:
    """What training took. Losses are means per `loss_unit`, which is tokens, windows or texts; `seconds` is training alone, without scoring."""

    steps: int
    epochs: float
    examples: int
    tokens: int
    loss_units: int
    loss_unit: str
    seconds: float
    tokens_per_second: float
    skipped_steps: int = 0
    best_step: int | None = None
    final_loss: float | None = None
    validation_loss: float | None = None
    validation_loss_before: float | None = None


@dataclass(frozen=True)
class Finding:
    """One thing to know about a run. level: ok, warn or bad."""

    level: str
    text: str


@dataclass
class Results:
    """Everything a run measured. `before` is the untuned model, null if it was not scored; `train` is null for an evaluation."""

    task: str
    task_version: int
    model: str
    split: str
    n: int
    metrics: dict[str, Metric]
    before: dict[str, Metric] | None = None
    paired: dict[str, Difference] = field(default_factory=dict)
    baselines: dict[str, dict[str, Metric]] = field(default_factory=dict)
    objective: Objective | None = None
    gates: list[GateResult] = field(default_factory=list)
    train: TrainSummary | None = None
    memory: dict[str, int] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    checks: list[Finding] = field(default_factory=list)
    seconds: float = 0.0
    finished: str = ""
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> dict[str, Any]:
        """As plain values, schema_version first; numbers that are not finite become null, because JSON has none."""
        return _finite({"schema_version": self.schema_version} | dataclasses.asdict(self))

    def write(self, path: Path) -> None:
        """Write results.json, whole or not at all."""
        durable.write_json(path, self.to_json())


def read(path: Path) -> Results:
    """Read a results.json back. Raises DataError if it is missing, damaged, or of a version this llmft does not know."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise DataError(f"{path}: no such file; expected the results of a finished run. Name a run that ended.") from err
    except ValueError as err:
        raise DataError(
            f"{path}: not valid JSON ({err}); expected the results of a run. Run `llmft eval` again to rewrite it."
        ) from err
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{path}: schema_version is {version!r}; this llmft reads {SCHEMA_VERSION}. Score the run again with `llmft eval`."
        )
    try:
        return _from_json(values)
    except (KeyError, TypeError, AttributeError) as err:
        raise DataError(
            f"{path}: not the fields of a results.json ({err}); see docs/run-directory.md. Score the run again."
        ) from err


def check_gates(gate: Gate, metrics: Mapping[str, Metric | Score], baseline: Results | None) -> list[GateResult]:
    """Compare scores with their limits; `baseline`: the results of the run named in gate.baseline.

    max_drop is measured in the direction that is worse for the score: down for rougeL, up for perplexity.
    Raises ConfigError, with every problem at once, for a score that was not computed and for a missing baseline.
    """
    problems = []
    for kind, limits in (("min", gate.min), ("max", gate.max), ("max_drop", gate.max_drop)):
        for name in limits:
            if name not in metrics:
                problems.append(
                    f"gate.{kind}.{name}: no score of that name; this run has {_names(metrics)}. Correct the name or add it to task.metrics."
                )
            elif kind == "max_drop" and baseline is None:
                problems.append(f"gate.max_drop.{name}: nothing to compare with. Name a finished run: gate.baseline=RUN.")
            elif kind == "max_drop" and baseline is not None and name not in baseline.metrics:
                problems.append(
                    f"gate.max_drop.{name}: the run in gate.baseline has no such score, it has {_names(baseline.metrics)}. "
                    "Correct the name or score that run again."
                )
    if problems:
        raise ConfigError(*problems)
    results = []
    for name, limit in gate.min.items():
        value = metrics[name].value
        results.append(GateResult(name, "min", limit, value, value is not None and value >= limit))
    for name, limit in gate.max.items():
        value = metrics[name].value
        results.append(GateResult(name, "max", limit, value, value is not None and value <= limit))
    for name, limit in gate.max_drop.items():
        assert baseline is not None
        drop = _drop(metrics[name], baseline.metrics[name])
        results.append(GateResult(name, "max_drop", limit, drop, drop is not None and drop <= limit))
    return results


def _drop(now: Metric | Score, then: Metric) -> float | None:
    if now.value is None or then.value is None:
        return None
    return now.value - then.value if now.higher_is_better is False else then.value - now.value


def _names(metrics: Mapping[str, Any]) -> str:
    return ", ".join(sorted(metrics)) or "none"


def _from_json(values: dict[str, Any]) -> Results:
    def metrics(scores: dict[str, Any]) -> dict[str, Metric]:
        return {name: Metric(**score) for name, score in scores.items()}

    nested = {
        "metrics": metrics(values["metrics"]),
        "before": None if values["before"] is None else metrics(values["before"]),
        "paired": {name: Difference(**row) for name, row in values["paired"].items()},
        "baselines": {name: metrics(scores) for name, scores in values["baselines"].items()},
        "objective": None if values["objective"] is None else Objective(**values["objective"]),
        "gates": [GateResult(**row) for row in values["gates"]],
        "train": None if values["train"] is None else TrainSummary(**values["train"]),
        "checks": [Finding(**row) for row in values["checks"]],
    }
    return Results(**(values | nested))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

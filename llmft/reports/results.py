"""What a run measured, results.json: scores with intervals, the untuned model, baselines, gates, training and memory."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from llmft.config.schema import Gate
from llmft.errors import ConfigError, DataError
from llmft.metrics.score import Score
from llmft.runs import durable

SCHEMA_VERSION = 1
MOST_BYTES = 16 << 20


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
    path: str = ""
    """How batches went through the model, or why each document went alone."""
    path_loss_difference: float | None = None
    path_gradient_difference: float | None = None


@dataclass(frozen=True)
class Finding:
    """One thing to know about a run. level: ok, warn or bad."""

    level: str
    text: str
    quote: str = ""
    """The text that this is about, which may stand in the data; for the owner's eyes, and never in the model card."""

    def whole(self) -> str:
        """The sentence with what it is about."""
        return f"{self.text} The text: {self.quote!r}" if self.quote else self.text


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
        if (size := path.stat().st_size) > MOST_BYTES:
            raise DataError(f"{path}: {size:,} bytes; the results of a run are a few thousand. Score the run again.")
        values = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except FileNotFoundError as err:
        raise DataError(f"{path}: no such file; expected the results of a finished run. Name a run that ended.") from err
    except OSError as err:
        raise DataError(f"{path}: cannot be read ({err.strerror}); expected the results of a run. Name another run.") from err
    except (ValueError, RecursionError) as err:
        raise DataError(
            f"{path}: not valid JSON ({err}); expected the results of a run. Run `llmft eval` again to rewrite it."
        ) from err
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{path}: schema_version is {version!r}; this llmft reads {SCHEMA_VERSION}. Score the run again with `llmft eval`."
        )
    try:
        return _build(Results, values, "results")
    except TypeError as err:
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


def _build(kind: Any, value: Any, where: str) -> Any:
    """A value of the type `kind` from what JSON holds. Raises TypeError for anything that `to_json` does not write."""
    if kind is Any or (
        value is None and (kind is float or type(None) in get_args(kind))
    ):  # a number that is not finite is null
        return value
    if get_origin(kind) in (Union, UnionType):
        kind = next(part for part in get_args(kind) if part is not type(None))
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, dict):
        known = {each.name: each for each in dataclasses.fields(kind)}
        hints = get_type_hints(kind)
        if unknown := sorted(value.keys() - known):
            raise TypeError(f"{where}: unknown {', '.join(unknown[:3])}")
        missing = dataclasses.MISSING
        needed = [name for name, each in known.items() if each.default is missing and each.default_factory is missing]
        if lacking := [name for name in needed if name not in value]:
            raise TypeError(f"{where}: no {', '.join(lacking)}")
        return kind(**{name: _build(hints[name], item, f"{where}.{name}") for name, item in value.items()})
    if get_origin(kind) is dict and isinstance(value, dict):
        return {name: _build(get_args(kind)[1], item, f"{where}.{name}") for name, item in value.items()}
    if get_origin(kind) is list and isinstance(value, list):
        return [_build(get_args(kind)[0], item, f"{where}.{place}") for place, item in enumerate(value)]
    if type(value) is kind or (kind is float and type(value) is int and abs(value) < 2**1023):
        return value
    raise TypeError(f"{where} is {ascii(value)[:40]}")


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""A task's names bound to what they stand for, so that a typo costs a second and not a model."""

import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from llmft.config import names
from llmft.config.bind import bind, bind_all, check_options, try_options
from llmft.config.schema import Task
from llmft.data.row import Row
from llmft.data.strict_json import shortened
from llmft.errors import ConfigError, DataError
from llmft.metrics.score import Score


@dataclass(frozen=True)
class BoundMetric:
    """A metric's function with the options that the task gives it."""

    name: str
    function: Callable[..., list[Score]]
    options: dict[str, Any]

    def measure(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[Score]:
        """Return the metric's scores. Raises ConfigError if it fails or returns something else."""
        try:
            scores = self.function(predictions, references, **self.options)
        except Exception as error:
            raise ConfigError(f"task.metrics.{self.name} raised {described(error)}. Fix the function.") from error
        if not isinstance(scores, list) or not all(isinstance(score, Score) for score in scores):
            raise ConfigError(
                f"task.metrics.{self.name} returned {shortened(scores)}; expected a list of llmft.metrics.score.Score. "
                "Fix the function."
            )
        return scores


@dataclass(frozen=True)
class BoundTask:
    """The functions that a task names."""

    formulation: type
    metrics: tuple[BoundMetric, ...]
    baselines: dict[str, Callable[..., str]]
    row: Callable[[dict[str, Any]], dict[str, Any] | None] | None
    builtin: Callable[[], dict[str, list[Row]]] | None


def bind_task(task: Task, plugins: Sequence[str]) -> BoundTask:
    """Look up every name of the task. Raises ConfigError with all that is wrong."""
    formulation, row, builtin, metrics, baselines = bind_all(
        lambda: bind(task.formulation.value, names.FORMULATIONS, plugins, "task.formulation"),
        lambda: bind(task.row, {}, plugins, "task.row") if task.row else None,
        lambda: bind(task.data.builtin, names.DATASETS, plugins, "task.data.builtin") if task.data.builtin else None,
        lambda: bind_all(*(partial(bind_metric, name, options, plugins) for name, options in task.metrics.items())),
        lambda: bind_all(*(partial(bind, name, names.BASELINES, plugins, "task.baselines") for name in task.baselines)),
    )
    return BoundTask(formulation, tuple(metrics), dict(zip(task.baselines, baselines, strict=True)), row, builtin)


def bind_metric(name: str, options: dict[str, Any] | None, plugins: Sequence[str]) -> BoundMetric:
    """Look up one metric and hold its options against the function's signature."""
    options = dict(options or {})
    where = f"task.metrics.{name}"
    function = bind(str(options.pop("call", name)), names.METRICS, plugins, where)
    check_options(function, options, given=2, where=where)
    if name in names.METRICS:  # one of the user's own may have reasons not to take texts like these
        with try_options(where, options):
            function(["a text", "another"], [("a text",), ("another one",)], **options)
    return BoundMetric(name, function, options)


def apply_row(rows: Iterable[Row], function: Callable[[dict[str, Any]], dict[str, Any] | None] | None) -> Iterator[Row]:
    """Pass every row through the task's row function, which may leave rows out by returning None.

    Raises DataError with the row where the function fails.
    """
    for row in rows:
        try:
            fields = row.fields if function is None else function(dict(row.fields))
        except Exception as error:
            raise DataError(
                f"{row.where}: task.row raised {described(error)}. Fix the function, or let it return None for such a row."
            ) from error
        if fields is not None:
            yield Row(fields, row.where)


def described(error: Exception) -> str:
    """Say what a function of the user's raised, and on which line."""
    line = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error}, at {line.filename}:{line.lineno}"

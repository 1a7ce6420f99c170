"""A task's names bound to what they stand for, so that a typo costs a second and not a model."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from llmft.config import names
from llmft.config.bind import bind, bind_all, check_options, try_options
from llmft.config.schema import Formulation, LabelKind, Task
from llmft.data.example import DocumentPrediction
from llmft.data.row import Row
from llmft.data.row_function import described
from llmft.data.strict_json import shortened
from llmft.errors import ConfigError, LlmftError
from llmft.metrics.intervals import with_interval
from llmft.metrics.score import Score

GIVEN = ("sources", "finish_reasons", "null_odds", "labels", "language", "window", "overlap")
"""What a formulation knows beside predictions and references; a metric gets those that it has a parameter for."""

MEASURED = {"perplexity": ("likelihoods",), "regression": ("numbers",), "classification": ("labels", "texts")}
"""What the built-in metrics measure, where it is not texts."""


@dataclass(frozen=True)
class BoundMetric:
    """A metric's function with the options that the task gives it, and the names of what else it wants to know."""

    name: str
    function: Callable[..., list[Score]]
    options: dict[str, Any]
    wants: tuple[str, ...]

    def measure(self, predictions: Sequence[Any], references: Sequence[Any], known: Mapping[str, Any]) -> list[Score]:
        """Return the metric's scores. Raises ConfigError if it fails or returns something else."""
        told = {name: known[name] for name in self.wants if name in known}
        try:
            scores = self.function(predictions, references, **told, **self.options)
        except LlmftError:
            raise
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

    formulation: Callable[..., Any]
    metrics: tuple[BoundMetric, ...]
    baselines: dict[str, Callable[..., str]]
    row: Callable[[dict[str, Any]], Any] | None
    builtin: Callable[[], dict[str, list[Row]]] | None


def bind_task(task: Task, plugins: Sequence[str]) -> BoundTask:
    """Look up every name of the task. Raises ConfigError with all that is wrong."""
    formulation, row, builtin, metrics, baselines = bind_all(
        lambda: bind(task.formulation.value, names.FORMULATIONS, plugins, "task.formulation"),
        lambda: bind(task.row, names.ROWS, plugins, "task.row") if task.row else None,
        lambda: bind(task.data.builtin, names.DATASETS, plugins, "task.data.builtin") if task.data.builtin else None,
        lambda: bind_all(*(partial(bind_metric, name, options, task, plugins) for name, options in task.metrics.items())),
        lambda: bind_all(*(partial(bind, name, names.BASELINES, plugins, "task.baselines") for name in task.baselines)),
    )
    return BoundTask(formulation, tuple(metrics), dict(zip(task.baselines, baselines, strict=True)), row, builtin)


def bind_metric(name: str, options: dict[str, Any] | None, task: Task, plugins: Sequence[str]) -> BoundMetric:
    """Look up one metric and hold its options against the function's signature."""
    options = dict(options or {})
    where = f"task.metrics.{name}"
    function = bind(str(options.pop("call", name)), names.METRICS, plugins, where)
    if taken := [option for option in options if option in GIVEN]:
        raise ConfigError(f"{where}.{taken[0]}: a metric gets {taken[0]} from the task. Leave it out.")
    wants = tuple(name for name in GIVEN if name in inspect.signature(function).parameters)
    check_options(function, options | dict.fromkeys(wants), given=2, where=where)
    if name in names.METRICS:  # one of the user's own may have reasons not to take what it is tried with
        kind, measured = predicted(task), MEASURED.get(name, ("texts",))
        if kind not in measured:
            fitting = ", ".join(each for each in names.METRICS if kind in MEASURED.get(each, ("texts",)))
            raise ConfigError(
                f"{where}: it measures {' and '.join(measured)}, and task={task.name} predicts {kind}, which {fitting} can measure. "
                f"Leave it out: ~task.metrics.{name}"
            )
        with try_options(where, options):
            predictions, references = probe(task)
            known = {"language": task.target_language} if "language" in wants else {}  # some need a package of their own
            function(predictions, references, **known, **options)
    return BoundMetric(name, function, options, wants)


def predicted(task: Task) -> str:
    """Return what the task predicts."""
    if task.formulation is Formulation.label:
        return "numbers" if task.label_kind is LabelKind.value else "labels"
    return "likelihoods" if task.formulation is Formulation.language_model else "texts"


def probe(task: Task) -> tuple[list[Any], list[Any]]:
    """Return two predictions and their references, of the kind that the task's metrics are given."""
    kind = predicted(task)
    if kind == "likelihoods":
        return [DocumentPrediction(name, 1.0, 2, 3) for name in "ab"], [(), ()]
    if kind == "labels":
        return [("a",), ("b",)], [("a",), ("b",)]
    texts = ("1.5", "2") if kind == "numbers" else ("a text", "another one")
    return list(texts), [(text,) for text in texts]


def measure(
    metrics: Sequence[BoundMetric], predictions: Sequence[Any], references: Sequence[Any], seed: int, **known: Any
) -> list[Score]:
    """Return all scores with their intervals; `known` is what GIVEN names, as far as the formulation has it."""
    scores = [score for metric in metrics for score in metric.measure(predictions, references, known)]
    return [with_interval(score, seed) for score in scores]

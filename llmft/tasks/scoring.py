"""Scoring a model on examples: predictions, their scores, trivial answers beside them, and the difference tuning made."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmft.config.dump import to_values
from llmft.data.example import Example, Prediction
from llmft.metrics.intervals import paired
from llmft.metrics.score import Score
from llmft.reports.results import Difference, Metric
from llmft.runs import durable
from llmft.runs.journal import Journal
from llmft.tasks.answers import predict_examples
from llmft.tasks.formulation import Formulation, Learner


@dataclass(frozen=True)
class Scored:
    """Predictions with their scores by name, and the rows of predictions/SPLIT.jsonl."""

    scores: dict[str, Score]
    rows: list[dict[str, Any]]

    @property
    def metrics(self) -> dict[str, Metric]:
        """The scores as results.json holds them."""
        return {name: Metric.of(score) for name, score in self.scores.items()}

    def higher_is_better(self, name: str) -> bool:
        """Tell in which direction a score improves; one that there is not counts as higher."""
        return name not in self.scores or self.scores[name].higher_is_better is not False


def score_examples(learner: Learner, examples: Sequence[Example], path: Path, title: str) -> Scored:
    """Predict and score `examples`, and write `path`, one row per example.

    Predictions that are there already, whole or in part, from a run that was stopped, are not made again.
    """
    if not examples:
        return Scored({}, [])
    formulation, partial = learner.formulation, path.with_name(f".{path.name}.partial")
    if path.exists():
        durable.unlink(partial)  # killed between the two
        found = [formulation.from_row(row["id"], row, str(path)) for row in Journal.read(path)]
        return scored(formulation, examples, found)
    predictions = predict_examples(learner, examples, partial, len(examples), title)
    result = score_predictions(formulation, examples, predictions, path)
    durable.unlink(partial)
    return result


def score_predictions(
    formulation: Formulation, examples: Sequence[Example], predictions: Sequence[Prediction], path: Path
) -> Scored:
    """Score predictions that are there, and write `path`, one row per example."""
    result = scored(formulation, examples, predictions)
    write_rows(path, result)
    return result


def write_rows(path: Path, result: Scored) -> None:
    """Write predictions/SPLIT.jsonl."""
    durable.make_folder(path.parent)
    durable.write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in result.rows))


def scored(formulation: Formulation, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Scored:
    """Score predictions of `examples`, given in the same order."""
    scores = {score.name: score for score in formulation.score(predictions, examples)}
    rows = [
        {
            "id": example.id,
            "source": to_values(example.source),
            **({"context": context} if (context := getattr(example, "context", None)) is not None else {}),
            **formulation.to_row(prediction),
            "references": list(example.targets),
            "scores": {score.row_name: score.per_example[number] for score in scores.values() if score.per_example},
        }
        for number, (example, prediction) in enumerate(zip(examples, predictions, strict=True))
    ]
    return Scored(scores, rows)


def baseline_metrics(
    formulation: Formulation, examples: Sequence[Example], train: Iterable[Example]
) -> dict[str, dict[str, Metric]]:
    """Score the task's trivial answers."""
    if not examples:
        return {}
    return {
        name: {score.name: Metric.of(score) for score in formulation.score(predictions, examples)}
        for name, predictions in formulation.baselines(examples, train).items()
    }


def differences(before: Scored | None, after: Scored, seed: int) -> dict[str, Difference]:
    """Compare the tuned with the untuned model, example by example."""
    if before is None:
        return {}
    return {
        name: Difference(**asdict(paired(before.scores[name], score, seed)))
        for name, score in after.scores.items()
        if score.n > 1  # one example is no sample: its difference has no interval
        and (score.of_sample or score.per_example)
        and name in before.scores
        and math.isfinite(score.value)
        and math.isfinite(before.scores[name].value)
    }

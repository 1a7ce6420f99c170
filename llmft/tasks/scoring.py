"""Scoring a model on examples: predictions, their scores, trivial answers beside them, and the difference tuning made."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmft.config.dump import to_values
from llmft.data.example import TextExample, TextPrediction
from llmft.metrics.intervals import paired
from llmft.metrics.score import Score
from llmft.reports.results import Difference, Metric
from llmft.runs import durable
from llmft.runs.journal import Journal
from llmft.tasks.answers import predict_examples
from llmft.tasks.text_to_text import TextToText


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
        return name not in self.scores or self.scores[name].higher_is_better


def score_examples(task: TextToText, examples: Sequence[TextExample], path: Path, title: str) -> Scored:
    """Predict and score `examples`, and write `path`, one row per example.

    Predictions that are there already, whole or in part, from a run that was stopped, are not made again.
    """
    if not examples:
        return Scored({}, [])
    if path.exists():
        found = [TextPrediction(row["id"], row["prediction"], row["finish_reason"]) for row in Journal.read(path)]
        return scored(task, examples, found)
    partial = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    result = scored(task, examples, predict_examples(task, examples, partial, len(examples), title))
    durable.write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in result.rows))
    partial.unlink()
    return result


def scored(task: TextToText, examples: Sequence[TextExample], predictions: Sequence[TextPrediction]) -> Scored:
    """Score predictions of `examples`, given in the same order."""
    scores = {score.name: score for score in task.score([each.text for each in predictions], examples)}
    rows = [
        {
            "id": example.id,
            "source": to_values(example.source),
            "prediction": prediction.text,
            "references": list(example.targets),
            # the mean over rows is not the score where it is one of the whole corpus: such values have another name
            "scores": {
                f"{name}_of_row" if score.of_sample else name: score.per_example[number]
                for name, score in scores.items()
                if score.per_example
            },
            "finish_reason": prediction.finished,
        }
        for number, (example, prediction) in enumerate(zip(examples, predictions, strict=True))
    ]
    return Scored(scores, rows)


def baseline_metrics(task: TextToText, examples: Sequence[TextExample]) -> dict[str, dict[str, Metric]]:
    """Score the task's trivial answers, held to max_new_tokens like the model's."""
    if not examples:
        return {}
    return {
        name.replace("_", "-"): {
            score.name: Metric.of(score)
            for score in task.score([task.limited(answer(example)) for example in examples], examples)
        }
        for name, answer in task.bound.baselines.items()
    }


def differences(before: Scored | None, after: Scored, seed: int) -> dict[str, Difference]:
    """Compare the tuned with the untuned model, example by example."""
    if before is None:
        return {}
    return {
        name: Difference(**asdict(paired(before.scores[name], score, seed)))
        for name, score in after.scores.items()
        if (score.of_sample or score.per_example) and math.isfinite(score.value) and math.isfinite(before.scores[name].value)
    }

"""Texts, or pairs of texts, to labels: one class of several, any number of them, or a number."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from llmft.config.schema import LabelKind, Task
from llmft.data.example import LabelExample, LabelPrediction
from llmft.data.row import Row
from llmft.data.strict_json import shortened
from llmft.data.template import Template
from llmft.errors import DataError
from llmft.metrics.score import Score
from llmft.tasks.bound import BoundTask, measure
from llmft.tasks.label_target import LabelTarget, as_text, list_in, named
from llmft.tasks.rows import each, row_id

MOST_LABELS = 1000
"""More different ones than this are a column of numbers or texts by mistake, unless task.labels names them all."""
WHOLE = re.compile(r"0|-?[1-9]\d{0,17}", re.ASCII)


class Label:
    """Rows to labelled texts, labels to scores.

    `labels` are the names of the classes in their order; a learner sets them where the task leaves them to the model, and
    without either any label goes.
    """

    def __init__(self, task: Task, bound: BoundTask, seed: int):
        self.task = task
        self.bound = bound
        self.seed = seed
        self.labels = tuple(task.labels)
        self.source = Template(task.source, "task.source")
        self.context = Template(task.context, "task.context") if task.context else None
        self.target = LabelTarget(task)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that an input needs."""
        return tuple(dict.fromkeys(self.source.columns + (self.context.columns if self.context else ())))

    def examples(self, rows: Iterable[Row]) -> Iterator[LabelExample]:
        """Fill the templates with each row. Raises DataError for a label that is none of the classes."""
        return each(rows, self.labelled, [self.source, self.target.template, *([self.context] if self.context else [])])

    def labelled(self, row: Row, number: int) -> LabelExample:
        """Make a row's example. Raises DataError for a label that is none of the classes."""
        targets = self.target.read(row)
        if self.labels and self.task.label_kind is not LabelKind.value:
            for label in targets:
                if label not in self.labels:
                    raise DataError(
                        f"{row.where}: the label {label!r} is none of the classes: {named(self.labels)}. Fix the row, or name "
                        "all classes in task.labels; those of the training rows count where it is empty."
                    )
        return LabelExample(row_id(row, number), self.source.fill(row), self.context_of(row), targets, row.where)

    def inputs(self, rows: Iterable[Row]) -> Iterator[LabelExample]:
        """Make examples without labels."""
        for number, row in enumerate(rows):
            yield LabelExample(row_id(row, number), self.source.fill(row), self.context_of(row), (), row.where)

    def context_of(self, row: Row) -> str | None:
        """Return the second text of a pair."""
        return self.context.fill(row) if self.context else None

    def to_row(self, prediction: LabelPrediction) -> dict[str, Any]:
        """Return the label, the list of labels or the number, and what is known of the other classes."""
        if self.task.label_kind is LabelKind.value:
            return {"prediction": float(prediction.labels[0])}
        if self.task.label_kind is LabelKind.multi:
            chosen: str | list[str] = list(prediction.labels)
        else:
            chosen = prediction.labels[0] if prediction.labels else ""
        return {"prediction": chosen, "probabilities": prediction.probabilities}

    def from_row(self, id: str, row: Mapping[str, Any], where: str) -> LabelPrediction:
        """Read what `to_row` writes. An empty label is a wrong one; tables write lists as JSON."""
        kind, found = self.task.label_kind, row["prediction"]
        probabilities = row.get("probabilities")
        known = probabilities if isinstance(probabilities, dict) else {}
        if kind is LabelKind.value:
            return LabelPrediction(id, (number_in(found, where),), {})
        if kind is LabelKind.multi and isinstance(found, str) and found.startswith("["):
            found = list_in(found, "the prediction", where)
        several = found if isinstance(found, list) else [] if found in ("", None) else [found]
        labels = [as_text(label) for label in several]
        if None in labels or (kind is LabelKind.single and isinstance(found, list)):
            wanted = "a list of labels" if kind is LabelKind.multi else "a label"
            raise DataError(f"{where}: the prediction is {shortened(found)}; expected {wanted}. An empty one counts as wrong.")
        return LabelPrediction(id, tuple(label for label in labels if label is not None), known)

    def score(self, predictions: Sequence[LabelPrediction], examples: Sequence[LabelExample]) -> list[Score]:
        """Score labels, as sets, or numbers, as texts."""
        references = [each.targets for each in examples]
        chosen = [each.labels for each in predictions]
        seen = sorted({label for labels in [*references, *chosen] for label in labels})
        return measure(
            self.bound.metrics,
            [labels[0] for labels in chosen] if self.task.label_kind is LabelKind.value else chosen,
            references,
            self.seed,
            sources=[text_of(each) for each in examples],
            labels=None if self.task.label_kind is LabelKind.value else list(self.labels) or seen,
            language=self.task.target_language,
        )

    def baselines(self, examples: Sequence[LabelExample], train: Iterable[LabelExample]) -> dict[str, list[LabelPrediction]]:
        """Return what is most common in training, a label or set of labels, or the mean number; and the task's own answers."""
        found = {
            name.replace("_", "-"): [LabelPrediction(each.id, (answer(each),), {}) for each in examples]
            for name, answer in self.bound.baselines.items()
        }
        common = self.most_common(train)
        if common is None:
            return found
        name = "mean" if self.task.label_kind is LabelKind.value else "majority"
        return {name: [LabelPrediction(each.id, common, {}) for each in examples]} | found

    def most_common(self, train: Iterable[LabelExample]) -> tuple[str, ...] | None:
        """Return the labels that most training rows have, of equally many the first by name; of numbers the mean."""
        if self.task.label_kind is LabelKind.value:
            values = [float(each.targets[0]) for each in train]
            return (repr(math.fsum(values) / len(values)),) if values else None
        counts = Counter(tuple(sorted(each.targets)) for each in train)
        return min(counts, key=lambda labels: (-counts[labels], labels)) if counts else None


def find_labels(task: Task, rows: Iterable[Row]) -> list[str]:
    """Return all labels of the rows, sorted, whole numbers by their size.

    Raises DataError where they are too few to tell apart, or too many.
    """
    target = LabelTarget(task)
    labels = sorted(set(chain.from_iterable(each(rows, lambda row, _: target.read(row)))))
    if all(WHOLE.fullmatch(label) for label in labels):
        labels.sort(key=int)
    if len(labels) > MOST_LABELS:
        raise DataError(
            f"task.target={task.target}: {len(labels)} different labels in training ({named(labels)}); expected {MOST_LABELS} at "
            "most. Take task=regression if it is a number, name another column, or name all classes in task.labels."
        )
    if task.label_kind is LabelKind.single and len(labels) == 1:
        raise DataError(
            f"task.target={task.target}: every training row has the label {labels[0]!r}; expected two classes at least. Look at "
            "the data and task.target."
        )
    if not labels:
        raise DataError(f"task.target={task.target}: no training row has a label; nothing to learn. Look at the data.")
    return labels


def text_of(example: LabelExample) -> str:
    """Return what is read as one text."""
    return example.source if example.context is None else f"{example.source}\n\n{example.context}"


def number_in(found: Any, where: str) -> str:
    """Return a predicted number as text. Raises DataError for anything else."""
    text = as_text(found)
    try:
        if text is not None and math.isfinite(float(text)):
            return text
    except ValueError:
        pass
    raise DataError(f"{where}: the prediction is {shortened(found)}; expected a number. Each row needs one.")

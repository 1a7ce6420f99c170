"""Extractive question answering: the answer is cut out of the context, or there is none (SQuAD 1.1 and 2.0)."""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from llmft.config.schema import Task
from llmft.data.example import SpanExample, SpanPrediction
from llmft.data.row import Row
from llmft.data.template import Template, column_of
from llmft.errors import ConfigError, DataError
from llmft.metrics.score import Score
from llmft.tasks.answer_spans import places_of
from llmft.tasks.bound import BoundTask, measure
from llmft.tasks.rows import each, row_id

FACTS = ("start", "end", "score", "null_odds")
"""What a prediction says beside its text, where it was made here."""


class Span:
    """Rows to questions with their contexts, spans to scores."""

    def __init__(self, task: Task, bound: BoundTask, seed: int):
        if task.context is None:
            raise ConfigError(
                "task.context is null: answers are cut out of a context; expected a template such as {context}. "
                "Set task.context to the column that holds the text."
            )
        for name in ("references", "messages"):
            if getattr(task, name) is not None:
                raise ConfigError(
                    f"task.{name} is set, but answers that are cut out of a context are read from task.target alone. Leave it out."
                )
        self.task = task
        self.bound = bound
        self.seed = seed
        self.question = Template(task.source, "task.source")
        self.context = Template(task.context, "task.context")
        self.target = Template(task.target, "task.target")
        self.answer_start = column_of(task.answer_start, "task.answer_start") if task.answer_start else None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that an input needs."""
        return tuple(dict.fromkeys(self.question.columns + self.context.columns))

    def examples(self, rows: Iterable[Row]) -> Iterator[SpanExample]:
        """Fill the templates with each row and find its answers. Raises DataError for a row without what it needs."""
        return each(rows, self.answered, [self.question, self.context, self.target])

    def answered(self, row: Row, number: int) -> SpanExample:
        """Make a row's example, its answers found in the context. Raises DataError."""
        question, context = self.asked(row)
        answers = self.answers_of(row)
        starts = self.answer_start.whole_numbers(row) if self.answer_start and answers else None
        places = places_of(answers, starts, context, row.where)
        return SpanExample(row_id(row, number), question, context, tuple(answers), places, row.where)

    def inputs(self, rows: Iterable[Row]) -> Iterator[SpanExample]:
        """Make examples without answers."""
        for number, row in enumerate(rows):
            question, context = self.asked(row)
            yield SpanExample(row_id(row, number), question, context, (), (), row.where)

    def asked(self, row: Row) -> tuple[str, str]:
        """Return a row's question and context. Raises DataError if one is empty."""
        question, context = self.question.fill(row), self.context.fill(row)
        for text, name in ((question, "question"), (context, "context")):
            if not text.strip():
                key = "task.source" if name == "question" else "task.context"
                raise DataError(f"{row.where}: the {name} is empty; expected text. Fix {key} or the data.")
        return question, context

    def answers_of(self, row: Row) -> list[str]:
        """Return a row's gold answers; none only where task.no_answer allows it. Raises DataError."""
        answers = [] if self.target.is_blank(row) else self.target.fill_all(row)
        if not answers and not self.task.no_answer:
            raise DataError(
                f"{row.where}: no answer in {self.task.target}; expected one. Set task.no_answer=true if a question may have none "
                "(SQuAD 2.0), or leave such rows out by task.row."
            )
        if not all(answer.strip() for answer in answers):
            raise DataError(
                f"{row.where}: an answer in {self.task.target} is empty; expected text. A question without an answer has an "
                "empty list, or null. Fix the data."
            )
        return answers

    def to_row(self, prediction: SpanPrediction) -> dict[str, Any]:
        """Return the answer, its place in the context in characters, its score and the odds of no answer, as far as known."""
        facts = {name: getattr(prediction, name) for name in FACTS}
        return {"prediction": prediction.text} | {name: value for name, value in facts.items() if value is not None}

    def from_row(self, id: str, row: Mapping[str, Any], where: str) -> SpanPrediction:
        """Read an answer; an empty text says that there is none. Raises DataError for what is no text, place or number."""
        text = row["prediction"]
        if not isinstance(text, str):
            raise DataError(
                f"{where}: the prediction is {text!r}; expected a text. An empty text says that there is no answer."
            )
        return SpanPrediction(id, text, **{name: fact_in(row, name, where) for name in FACTS})

    def score(self, predictions: Sequence[SpanPrediction], examples: Sequence[SpanExample]) -> list[Score]:
        """Score answers against the gold ones; the odds of no answer go along where there may be none and all have them."""
        odds = [each.null_odds for each in predictions]
        return measure(
            self.bound.metrics,
            [each.text for each in predictions],
            [each.targets for each in examples],
            self.seed,
            sources=[each.source for each in examples],
            null_odds=odds if self.task.no_answer and None not in odds else None,
            language=self.task.target_language,
        )

    def baselines(self, examples: Sequence[SpanExample], train: Iterable[SpanExample]) -> dict[str, list[SpanPrediction]]:
        """Return the task's trivial answers."""
        return {
            name.replace("_", "-"): [SpanPrediction(each.id, answer(each)) for each in examples]
            for name, answer in self.bound.baselines.items()
        }


def fact_in(row: Mapping[str, Any], name: str, where: str) -> Any:
    """Return a place or a number of a prediction, also as a table has it; None if it has none. Raises DataError for anything else."""
    value, kind = row.get(name), int if name in ("start", "end") else float
    if value in (None, ""):
        return None
    found = value
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            found = kind(value)
    if type(found) not in (int, kind) or not math.isfinite(found):
        raise DataError(
            f"{where}: {name} is {value!r}; expected a {'whole ' if kind is int else ''}number. Fix it, or leave it out."
        )
    return found

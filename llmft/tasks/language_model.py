"""Plain texts: how likely they are, and how they go on."""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llmft.config.schema import Task
from llmft.data.example import DocumentExample, DocumentPrediction
from llmft.data.row import Row
from llmft.data.strict_json import shortened
from llmft.data.template import Template
from llmft.errors import DataError
from llmft.metrics.score import Score
from llmft.tasks.bound import BoundTask, measure
from llmft.tasks.rows import each, row_id

NUMBERS = {"nll": (int, float), "tokens": (int,), "num_bytes": (int,)}
"""Columns that a prediction needs, with the kinds of numbers in them."""
PSEUDO = "likelihood:pseudo"
"""In a signature: each token was predicted from all others (Salazar et al. 2020, arXiv:1910.14659), not from those before it."""


class LanguageModel:
    """Rows to texts, likelihoods to scores.

    `window` is the length in tokens of what is read at once, for the scores' signature; a learner sets what its model reads.
    """

    def __init__(self, task: Task, bound: BoundTask, seed: int):
        self.task = task
        self.bound = bound
        self.seed = seed
        self.window = task.max_source_tokens
        self.source = Template(task.source, "task.source")

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that a text is made of."""
        return self.source.columns

    def examples(self, rows: Iterable[Row]) -> Iterator[DocumentExample]:
        """Fill the template with each row."""
        return each(
            rows, lambda row, number: DocumentExample(row_id(row, number), self.source.fill(row), row.where), [self.source]
        )

    def inputs(self, rows: Iterable[Row]) -> Iterator[DocumentExample]:
        """Make texts that are to be continued as well."""
        return (replace(example, continued=True) for example in self.examples(rows))

    def to_row(self, prediction: DocumentPrediction) -> dict[str, Any]:
        """Return the continuation, and what the likelihood is made of."""
        return {
            "prediction": prediction.text,
            "nll": prediction.nll,
            "tokens": prediction.tokens,
            "num_bytes": prediction.num_bytes,
            "finish_reason": prediction.finished,
            **({"pseudo": True} if prediction.pseudo else {}),
        }

    def from_row(self, id: str, row: Mapping[str, Any], where: str) -> DocumentPrediction:
        """Read what `to_row` writes; nll, tokens and num_bytes are enough. Raises DataError where they are no such numbers."""
        values = {name: number_in(row, name, where) for name in NUMBERS}
        return DocumentPrediction(
            id,
            float(values["nll"]),
            int(values["tokens"]),
            int(values["num_bytes"]),
            str(row.get("prediction", "")),
            str(row.get("finish_reason", "")),
            pseudo=row.get("pseudo") in (True, "True", "true"),
        )

    def score(self, predictions: Sequence[DocumentPrediction], examples: Sequence[DocumentExample]) -> list[Score]:
        """Score likelihoods; a pseudo-likelihood says so in the signature, for it compares with none of the other kind."""
        scores = measure(
            self.bound.metrics,
            predictions,
            [each.targets for each in examples],
            self.seed,
            sources=[each.source for each in examples],
            language=self.task.target_language,
            window=self.window,
            overlap=self.task.overlap,
        )
        if any(each.pseudo for each in predictions):
            return [replace(score, signature=f"{score.signature}|{PSEUDO}") for score in scores]
        return scores

    def baselines(
        self, examples: Sequence[DocumentExample], train: Iterable[DocumentExample]
    ) -> dict[str, list[DocumentPrediction]]:
        """Return none: a trivial likelihood would count in other tokens than the model's."""
        return {}


def number_in(row: Mapping[str, Any], name: str, where: str) -> float:
    """Return a number of a prediction. Raises DataError if the row has none."""
    value = row.get(name)
    if isinstance(value, str):  # as a table has it
        with contextlib.suppress(ValueError):
            value = float(value) if name == "nll" else int(value)
    if isinstance(value, bool) or not isinstance(value, NUMBERS[name]) or not math.isfinite(value) or value < 0:
        raise DataError(
            f"{where}: {name} is {shortened(value)}; expected {'a number' if name == 'nll' else 'a whole number'}, 0 or more. A "
            "language model's prediction holds nll (nats), tokens (scored) and num_bytes (UTF-8)."
        )
    return value

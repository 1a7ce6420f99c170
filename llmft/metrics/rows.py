"""Predictions and references that belong together, row by row: the tools below compare what is there and say nothing of the rest."""

from collections.abc import Sequence
from typing import Any

from llmft.errors import DataError


def check_lengths(metric: str, predictions: Sequence[Any], references: Sequence[Any]) -> None:
    """Refuse another number of references than of predictions. Raises DataError."""
    if len(predictions) != len(references):
        raise DataError(
            f"{metric}: {len(predictions)} predictions, but references for {len(references)} rows; expected one prediction a row. "
            "Give both for the same rows, in the same order."
        )


def check_texts(metric: str, predictions: Sequence[Any], references: Sequence[Any]) -> None:
    """Refuse rows without a predicted text, or without a list of one or more reference texts. Raises DataError."""
    check_lengths(metric, predictions, references)
    for row, (prediction, targets) in enumerate(zip(predictions, references, strict=True), start=1):
        if not isinstance(prediction, str):
            raise DataError(f"{metric}: row {row}: the prediction is {prediction!r}; expected a text, be it empty. Add it.")
        if isinstance(targets, str) or not targets or not all(isinstance(target, str) for target in targets):
            raise DataError(f"{metric}: row {row}: the references are {targets!r}; expected a list of texts. Add one or more.")

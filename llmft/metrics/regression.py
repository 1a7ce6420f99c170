"""How close predicted numbers are to the true ones."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from llmft.errors import DataError
from llmft.metrics.rows import check_texts
from llmft.metrics.score import Score


def regression(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[Score]:
    """`pearson` and `spearman` correlation x 100, as the GLUE tables have them, and `mae`, the mean absolute error.

    Numbers come as texts; of the references the first counts. Where all predictions, or all references, are equal, there is no
    correlation: not a number.
    Raises DataError for what is no finite number.
    """
    check_texts("regression", predictions, references)
    found = numbers(predictions, "prediction")
    true = numbers([each[0] for each in references], "reference")
    errors = np.abs(found - true)
    n = len(found)

    def correlated(name: str, ranks: str, compute: Callable[[np.ndarray, np.ndarray], float]) -> Score:
        def of_sample(places: np.ndarray) -> float:
            return compute(found[places], true[places])

        return Score(name, compute(found, true), n, f"{name}|x 100{ranks}", of_sample=of_sample)

    error = float(errors.mean()) if n else math.nan
    return [
        correlated("pearson", "", pearson),
        correlated("spearman", "|ties:mean rank", spearman),
        Score("mae", error, n, "mean absolute error", higher_is_better=False, per_example=tuple(errors.tolist())),
    ]


def numbers(texts: Sequence[str], kind: str) -> np.ndarray:
    """Read numbers. Raises DataError with the row of one that is none, or not finite."""
    values = []
    for row, text in enumerate(texts, start=1):
        try:
            values.append(float(text))
        except ValueError:
            values.append(math.nan)
        if not math.isfinite(values[-1]):
            raise DataError(f"regression: row {row}: the {kind} is {text!r}; expected a finite number. Fix it.")
    return np.array(values)


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Covariance over the product of standard deviations, x 100."""
    if len(x) == 0 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    x, y = x - x.mean(), y - y.mean()
    return float(100 * (x @ y) / math.sqrt((x @ x) * (y @ y)))


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation of the ranks, x 100."""
    return pearson(ranks(x), ranks(y))


def ranks(values: np.ndarray) -> np.ndarray:
    """Places in ascending order, from 1; equal values share the mean of theirs."""
    _, order, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[order]

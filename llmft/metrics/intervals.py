"""How sure a score is: bootstrap intervals, and the paired bootstrap for a difference (Koehn 2004, aclanthology.org/W04-3250)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmft.metrics.score import Score

RESAMPLES = 2000


def resampled_means(values: np.ndarray, seed: int) -> np.ndarray:
    """Means of RESAMPLES samples drawn from `values` with replacement, each as large as `values`."""
    random = np.random.default_rng(seed)
    # in slices: RESAMPLES x n indices at once would not fit for a large test set
    rows = max(1, 10_000_000 // max(1, len(values)))
    slices = [min(rows, RESAMPLES - start) for start in range(0, RESAMPLES, rows)]
    return np.concatenate([values[random.integers(len(values), size=(count, len(values)))].mean(axis=1) for count in slices])


def with_interval(score: Score, seed: int) -> Score:
    """Add the 95 % percentile bootstrap interval to a score that is a mean over examples."""
    if not score.per_example or score.low is not None:
        return score
    low, high = np.percentile(resampled_means(np.asarray(score.per_example), seed), [2.5, 97.5])
    return replace(score, low=float(low), high=float(high))


@dataclass(frozen=True)
class Paired:
    """Difference of two scores on the same examples, its 95 % interval, and the two-sided p-value."""

    difference: float
    low: float
    high: float
    p: float
    n: int


def paired(before: Sequence[float], after: Sequence[float], seed: int) -> Paired:
    """Paired bootstrap of mean(after) - mean(before).

    p is twice the smaller share of resampled differences on one side of zero, never below 1/RESAMPLES. Few examples that all
    improve are resampled into nothing else, so p is never below 2 / 2^n either: the chance that n signs fall alike.
    """
    differences = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    means = resampled_means(differences, seed)
    low, high = np.percentile(means, [2.5, 97.5])
    p = 2 * min((means <= 0).mean(), (means >= 0).mean())
    n = len(differences)
    p = min(1.0, max(p, 1 / RESAMPLES, 2 * 0.5**n))
    return Paired(float(differences.mean()), float(low), float(high), float(p), n)

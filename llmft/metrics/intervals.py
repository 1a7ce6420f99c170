"""How sure a score is: bootstrap intervals, and the paired bootstrap for a difference (Koehn 2004, aclanthology.org/W04-3250)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from llmft.metrics.score import Score

RESAMPLES = 2000


def resampled_places(n: int, seed: int) -> Iterator[np.ndarray]:
    """Draw RESAMPLES samples of n places with replacement; each array holds some of them, one a row."""
    random = np.random.default_rng(seed)
    # in slices: RESAMPLES x n places at once would not fit for a large test set
    rows = max(1, 10_000_000 // max(1, n))
    for start in range(0, RESAMPLES, rows):
        yield random.integers(n, size=(min(rows, RESAMPLES - start), n))


def resampled_means(values: np.ndarray, seed: int) -> np.ndarray:
    """Means of RESAMPLES samples drawn from `values` with replacement, each as large as `values`."""
    return np.concatenate([values[places].mean(axis=1) for places in resampled_places(len(values), seed)])


def resampled_scores(score: Score, seed: int) -> np.ndarray:
    """Values that a score takes on RESAMPLES samples of its examples; the same samples for the same seed and n."""
    if score.of_sample is None:
        return resampled_means(np.asarray(score.per_example, dtype=float), seed)
    return np.array([score.of_sample(sample) for places in resampled_places(score.n, seed) for sample in places])


def with_interval(score: Score, seed: int) -> Score:
    """Add the 95 % percentile bootstrap interval, where the score can be computed for samples of its examples.

    A single example cannot be resampled into anything else: no interval. Samples for which the score is not defined
    (a correlation, where all values drawn are equal) are left out.
    """
    num = score.n if score.of_sample else len(score.per_example)
    if num < 2 or score.low is not None or not math.isfinite(score.value):
        return score
    values = resampled_scores(score, seed)
    low, high = np.percentile(values[np.isfinite(values)], [2.5, 97.5])
    return replace(score, low=float(low), high=float(high))


@dataclass(frozen=True)
class Paired:
    """Difference of two scores on the same examples, its 95 % interval, and the two-sided p-value."""

    difference: float
    low: float
    high: float
    p: float
    n: int


def paired(before: Score, after: Score, seed: int) -> Paired:
    """Paired bootstrap of after - before, two scores of one kind on the same examples: each sample is drawn for both.

    p is twice the smaller share of resampled differences on one side of zero, never below 1/RESAMPLES. Few examples that all
    improve are resampled into nothing else, so p is never below 2 / 2^n either: the chance that n signs fall alike.
    """
    if after.of_sample:
        assert before.n == after.n, f"{before.n} and {after.n} examples"
        difference, n = after.value - before.value, after.n
        resampled = resampled_scores(after, seed) - resampled_scores(before, seed)
    else:
        differences = np.asarray(after.per_example, dtype=float) - np.asarray(before.per_example, dtype=float)
        difference, n = differences.mean(), len(differences)
        resampled = resampled_means(differences, seed)
    resampled = resampled[np.isfinite(resampled)]
    low, high = np.percentile(resampled, [2.5, 97.5])
    p = 2 * min((resampled <= 0).mean(), (resampled >= 0).mean())
    p = min(1.0, max(p, 1 / RESAMPLES, 2 * 0.5**n))
    return Paired(float(difference), float(low), float(high), float(p), n)

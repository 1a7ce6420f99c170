"""How often the right labels are chosen, over all rows and class by class."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from llmft.metrics.rows import check_lengths
from llmft.metrics.score import Score

# n rows, C classes; totals_3C: for each class the rows in which it is right, predicted and true.


def classification(
    predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]], *, labels: Sequence[str] | None = None
) -> list[Score]:
    """`accuracy`, `f1_macro`, `f1_micro` and, where each row has a single label, `matthews`; all x 100, as the GLUE tables have them.

    Accuracy: rows with exactly the right labels. Macro F1: the mean over the classes that occur in references or predictions,
    0 for one that is never right; micro F1: of all decisions together. Matthews: R_K, its form for any number of classes
    (Gorodkin 2004, doi.org/10.1016/j.compbiolchem.2004.09.006), 0 where all predictions or all references are of one class.
    Parts: `per_class` of f1_macro has precision, recall, f1 and support (rows with this label); `confusion` of accuracy, for
    single labels, says how often a true label (outside) was taken for another (inside); "" is no prediction.
    labels: all classes, in the order in which parts shall have them; classes not named are added.
    """
    check_lengths("classification", predictions, references)
    found, true = [set(row) for row in predictions], [set(row) for row in references]
    names = list(dict.fromkeys([*(labels or ()), *sorted(set().union(*true, *found))]))
    n = len(true)
    # rows, not the task, tell: all true labels are single, and nothing was given two
    single = all(len(row) == 1 for row in true) and all(len(row) <= 1 for row in found)
    pairs = [occurrences(sets, names) for sets in ([f & t for f, t in zip(found, true, strict=True)], found, true)]
    signature = f"x 100|{'single' if single else 'multiple'} labels|classes:{len(names)}"

    def totals(weights: np.ndarray) -> np.ndarray:
        """Totals where each row counts as often as its weight says: once, or as often as a sample has drawn it."""
        return np.stack([np.bincount(classes, weights[rows], minlength=len(names)) for rows, classes in pairs])

    def measure(name: str, compute: Callable[[np.ndarray, int], float], kind: str, parts: dict[str, Any]) -> Score:
        def of_sample(places: np.ndarray) -> float:
            return compute(totals(np.bincount(places, minlength=n).astype(float)), len(places))

        return Score(name, compute(whole, n), n, f"{kind}|{signature}", parts=parts, of_sample=of_sample)

    whole = totals(np.ones(n))
    right = tuple(100.0 * (f == t) for f, t in zip(found, true, strict=True))
    accuracy = sum(right) / n if n else math.nan
    parts = {"confusion": confusion(found, true)} if single else {}
    scores = [
        Score("accuracy", accuracy, n, f"exact match|{signature}", parts=parts, per_example=right),
        measure("f1_macro", f1_macro, "mean over classes that occur", {"per_class": per_class(whole, names)}),
        measure("f1_micro", f1_micro, "all decisions together", {}),
    ]
    return [*scores, measure("matthews", matthews, "R_K", {})] if single else scores


def occurrences(rows: Sequence[set[str]], names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Row and class of every label that there is."""
    place = {name: number for number, name in enumerate(names)}
    found = [(row, place[label]) for row, labels in enumerate(rows) for label in labels]
    return tuple(np.array(found, dtype=np.int64).reshape(-1, 2).T)  # type: ignore[return-value]


def f1_of(right: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """2 right / (predicted + true), the harmonic mean of precision and recall; 0 for what does not occur."""
    return 2 * right / np.maximum(predicted + true, 1)


def f1_macro(totals_3C: np.ndarray, n: int) -> float:
    """The mean over the classes that occur."""
    occurs = totals_3C[1] + totals_3C[2] > 0
    return float(100 * f1_of(*totals_3C)[occurs].mean()) if occurs.any() else math.nan


def f1_micro(totals_3C: np.ndarray, n: int) -> float:
    """F1 of all decisions together; equal to accuracy where each row has one label in both."""
    right, predicted, true = totals_3C.sum(axis=1)
    return float(200 * right / (predicted + true)) if predicted + true else math.nan


def matthews(totals_3C: np.ndarray, n: int) -> float:
    """Gorodkin's R_K from the totals; rows without prediction are a class of their own."""
    right, predicted, true = totals_3C
    predicted = np.append(predicted, n - predicted.sum())
    true = np.append(true, 0)
    spread = (n * n - predicted @ predicted) * (n * n - true @ true)
    return float(100 * (right.sum() * n - predicted @ true) / math.sqrt(spread)) if spread else 0.0


def per_class(totals_3C: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 x 100 and support of each class; 0 where there is nothing to divide by."""
    right, predicted, true = totals_3C
    columns = zip(right / np.maximum(predicted, 1), right / np.maximum(true, 1), f1_of(*totals_3C), true, strict=True)
    return {
        name: {"precision": 100 * float(p), "recall": 100 * float(r), "f1": 100 * float(f1), "support": int(support)}
        for name, (p, r, f1, support) in zip(names, columns, strict=True)
    }


def confusion(found: Sequence[set[str]], true: Sequence[set[str]]) -> dict[str, dict[str, int]]:
    """For each true label how often which label was predicted, the frequent ones first."""
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for predicted, (label,) in zip(found, true, strict=True):
        table[label]["".join(predicted)] += 1
    return {label: dict(table[label].most_common()) for label in sorted(table)}

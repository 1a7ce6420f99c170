"""Scores of a corpus as a whole by sacrebleu (Post 2018, aclanthology.org/W18-6319), computed from counts that each row adds to."""

import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
import sacrebleu
from sacrebleu.metrics.base import Metric

from llmft.metrics.rows import check_texts
from llmft.metrics.score import Score


def measure_corpus(
    name: str,
    metric: Metric,
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    higher_is_better: bool = True,
    of_row: Metric | None = None,
) -> tuple[Score, Any]:
    """Score raw texts with one of sacrebleu's metrics; also returns sacrebleu's own result, with what it is made of.

    Rows may have different numbers of references: sacrebleu's reference streams hold None where a row has no more.
    of_row: the metric for single rows, where it is another one. The signature is sacrebleu's.
    Raises DataError for rows without prediction or reference, which sacrebleu would pass over.
    """
    check_texts(name, predictions, references)
    if not predictions:
        return Score(name, math.nan, 0, f"sacrebleu {sacrebleu.__version__}", higher_is_better), None
    # As Metric.corpus_score does, in its two steps, because samples of the rows need the first one's counts.
    rows = metric._extract_corpus_statistics(predictions, list(zip_longest(*references)))
    whole = metric._aggregate_and_compute(rows)
    counts = np.array(rows)

    def of_sample(places: np.ndarray) -> float:
        return metric._compute_score_from_stats(counts[places].sum(axis=0).tolist()).score

    per_example = tuple((of_row or metric)._compute_score_from_stats(list(row)).score for row in rows)
    signature = str(metric.get_signature())
    score = Score(name, whole.score, len(rows), signature, higher_is_better, per_example=per_example, of_sample=of_sample)
    return score, whole

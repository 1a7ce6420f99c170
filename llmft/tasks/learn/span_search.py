"""From scores of starts and ends to an answer: the published procedure of SQuAD's first BERT models.

Devlin et al. 2019, arXiv:1810.04805, in the form of transformers' run_qa (postprocess_qa_predictions).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmft.data.example import SpanExample, SpanPrediction
from llmft.tasks.learn.span_windows import Window

N_BEST = 20
"""Starts and ends tried of each window, the best ones of all its tokens: run_qa's n_best_size."""


@dataclass(frozen=True, eq=False)
class Scored:
    """A window with each token's score as an answer's first token and as its last, in float64."""

    window: Window
    start_T: np.ndarray
    end_T: np.ndarray

    @property
    def null_score(self) -> float:
        """Score of no answer."""
        return float(self.start_T[self.window.no_answer] + self.end_T[self.window.no_answer])


@dataclass(frozen=True)
class Candidate:
    """An answer's score and its characters in the context, from start up to end."""

    score: float
    start: int
    end: int


def choose_answer(example: SpanExample, windows: Sequence[Scored], longest: int, no_answer: bool) -> SpanPrediction:
    """Return the best answer over all windows, of at most `longest` tokens; with `no_answer`, none if that scores better.

    The score of no answer is the lowest over the windows: each has to say that the answer is not in it. Where none of the
    best starts goes with one of the best ends, all of them are tried; run_qa answers "empty" there.
    """
    null_score = min(each.null_score for each in windows)
    best = best_of(windows, longest, N_BEST) or best_of(windows, longest, None)
    if best is None:  # a context without a single token, such as control characters
        return SpanPrediction(example.id, "", 0, 0, null_score, 0.0)
    null_odds = null_score - best.score
    if no_answer and null_odds > 0:
        return SpanPrediction(example.id, "", 0, 0, null_score, null_odds)
    return SpanPrediction(example.id, example.context[best.start : best.end], best.start, best.end, best.score, null_odds)


def best_of(windows: Sequence[Scored], longest: int, n_best: int | None) -> Candidate | None:
    """Return the best answer over all windows, the first of equal ones; None if no start goes with an end."""
    found = [best for each in windows if (best := best_span(each, longest, n_best)) is not None]
    return max(found, key=lambda each: each.score, default=None)


def best_span(scored: Scored, longest: int, n_best: int | None) -> Candidate | None:
    """Return the best answer within a window, among its `n_best` starts and ends; None: among all of them."""
    offsets_T2, answerable_T = scored.window.offsets_T2, scored.window.answerable_T
    starts, ends = (np.argsort(each, kind="stable")[::-1][:n_best] for each in (scored.start_T, scored.end_T))
    starts, ends = starts[answerable_T[starts]], ends[answerable_T[ends]]
    tokens = ends[None, :] - starts[:, None] + 1
    scores = np.where(
        (tokens >= 1) & (tokens <= longest), scored.start_T[starts][:, None] + scored.end_T[ends][None, :], -np.inf
    )
    if not np.isfinite(scores).any():
        return None
    row, column = np.unravel_index(np.argmax(scores), scores.shape)
    return Candidate(float(scores[row, column]), int(offsets_T2[starts[row], 0]), int(offsets_T2[ends[column], 1]))

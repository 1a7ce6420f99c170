"""Exact match and F1 of answers as SQuAD's own evaluation defines them (Rajpurkar et al. 2016, 2018; evaluate-v2.0.py)."""

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

from llmft.metrics.language import language_code
from llmft.metrics.rows import check_lengths
from llmft.metrics.score import Score
from llmft.metrics.words import split_words

BY_CHARACTER = ("zh", "ja", "th")
"""Languages whose answers are compared by character, having no spaces between words."""
ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = frozenset(string.punctuation)


def squad(
    predictions: Sequence[str | None],
    references: Sequence[Sequence[str]],
    *,
    null_odds: Sequence[float] | None = None,
    language: str | None = None,
) -> list[Score]:
    """`exact_match` and `f1` x 100, for each question the best over its gold answers, the mean over all questions.

    No gold answers: the text does not answer the question, and only an empty prediction is right. None: the question was not
    answered at all, which counts 0. Words are compared in lower case without ASCII punctuation and English articles;
    for Chinese, Japanese and Thai targets single characters without any punctuation, as MLQA does for Chinese (Lewis et al.
    2020, aclanthology.org/2020.acl-main.653).
    Parts: the score of answerable (HasAns) and unanswerable (NoAns) questions and their numbers; with `null_odds`, one number a
    question that is the higher, the less the text seems to answer it: the best score that a threshold on it would give.
    """
    check_lengths("squad", predictions, references)
    by_character = language_code(language) in BY_CHARACTER
    split = split_characters if by_character else split_answer
    signature = "squad 2.0|x 100, mean|references:best|missing:0|normalised:" + (
        "lower case, no punctuation (Unicode)|F1 of characters"
        if by_character
        else "lower case, no ASCII punctuation, no a/an/the|F1 of words"
    )
    exact, f1 = [], []
    for prediction, answers in zip(predictions, references, strict=True):
        gold = [words for words in map(split, answers) if words] or [[]]  # an answer of nothing but articles is none
        words = None if prediction is None else split(prediction)
        exact.append(0.0 if words is None else 100.0 * (words in gold))
        f1.append(0.0 if words is None else 100.0 * max(overlap(words, each) for each in gold))
    answerable = [bool([words for words in map(split, answers) if words]) for answers in references]
    empty = [prediction == "" for prediction in predictions]
    return [
        Score(
            name,
            mean(values),
            len(values),
            signature,
            parts=by_answerability(values, answerable)
            | ({} if null_odds is None else best_threshold(name, values, answerable, empty, null_odds)),
            per_example=tuple(values),
        )
        for name, values in (("exact_match", exact), ("f1", f1))
    ]


def split_answer(text: str) -> list[str]:
    """Words in lower case without punctuation and articles: normalize_answer and get_tokens of the official script."""
    return ARTICLES.sub(" ", "".join(letter for letter in text.lower() if letter not in PUNCTUATION)).split()


def split_characters(text: str) -> list[str]:
    """Characters of scripts without spaces, words of others, without anything that Unicode calls punctuation."""
    kept = "".join(" " if unicodedata.category(letter).startswith("P") or letter in PUNCTUATION else letter for letter in text)
    return split_words(kept)


def overlap(prediction: Sequence[str], gold: Sequence[str]) -> float:
    """F1 of two bags of words; if one is empty, 1 where both are."""
    if not prediction or not gold:
        return float(prediction == gold)
    same = sum((Counter(prediction) & Counter(gold)).values())
    return 2 * same / (len(prediction) + len(gold))


def by_answerability(values: Sequence[float], answerable: Sequence[bool]) -> dict[str, Any]:
    """Mean and number of the questions with and without an answer, the mean where there are any."""
    parts: dict[str, Any] = {}
    for name, wanted in (("HasAns", True), ("NoAns", False)):
        some = [value for value, has in zip(values, answerable, strict=True) if has is wanted]
        parts |= {name: mean(some)} if some else {}
        parts |= {f"{name}_total": len(some)}
    return parts


def best_threshold(
    name: str, values: Sequence[float], answerable: Sequence[bool], empty: Sequence[bool], null_odds: Sequence[float]
) -> dict[str, float]:
    """Best score by a threshold, up to which a question keeps its answer: find_best_thresh of the official script.

    It starts with all questions unanswered, takes their answers in order of their odds, and stops wherever it is best.
    """
    assert len(null_odds) == len(values), f"{len(null_odds)} null odds, {len(values)} questions"
    current = best = 100.0 * sum(not has for has in answerable)
    threshold = 0.0
    for place in sorted(range(len(values)), key=lambda place: null_odds[place]):
        current += values[place] if answerable[place] else -100.0 * (not empty[place])
        if current > best:
            best, threshold = current, float(null_odds[place])
    short = {"exact_match": "best_exact", "f1": "best_f1"}[name]
    return {short: best / len(values) if values else math.nan, f"{short}_threshold": threshold}


def mean(values: Sequence[float]) -> float:
    """The mean; not a number of nothing."""
    return sum(values) / len(values) if values else math.nan

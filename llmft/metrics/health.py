"""Whether generated texts are sound as texts: empty, cut off, copied, repetitive, all alike. References beside them, where possible."""

import math
from collections import Counter
from collections.abc import Sequence

from llmft.metrics.rows import check_texts
from llmft.metrics.score import Score
from llmft.metrics.words import split_words

REPEATED_WORDS = 4
COPIED_WORDS = 5
"""Shorter predictions stand in their source by chance; words as split_words counts them."""


def health(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    sources: Sequence[str] | None = None,
    finish_reasons: Sequence[str] | None = None,
) -> list[Score]:
    """Per 100 predictions how many are `empty`, `cut` at max_new_tokens, `copied` from their source, or repeat 4 words in a row.

    `distinct1` and `distinct2`: different words, and pairs of words, per 100 of all predictions together (Li et al. 2016,
    aclanthology.org/N16-1014); they fall with the number of predictions: compare them on the same rows only.
    Where texts can be looked at so, parts hold the value of the references, the first of each row. Without `sources` there is
    no `copied`, without `finish_reasons` no `cut`.
    """
    check_texts("health", predictions, references)
    targets = [each[0] for each in references]
    scores = [share("empty", list(map(is_empty, predictions)), list(map(is_empty, targets)))]
    if finish_reasons is not None:
        scores.append(share("cut", [reason == "length" for reason in finish_reasons]))
    if sources is not None:
        copies = [is_copied(*pair) for pair in zip(predictions, sources, strict=True)]
        scores.append(share("copied", copies, [is_copied(*pair) for pair in zip(targets, sources, strict=True)]))
    scores += [distinct("distinct1", 1, predictions, targets), distinct("distinct2", 2, predictions, targets)]
    return [*scores, share("repeated4", list(map(repeats_itself, predictions)), list(map(repeats_itself, targets)))]


def share(name: str, found: Sequence[bool], usual: Sequence[bool] | None = None) -> Score:
    """Return how many of 100 are so, and of the references."""
    n = len(found)
    parts = {"references": 100 * sum(usual) / n} if usual and n else {}
    each = tuple(100.0 * yes for yes in found)
    value = sum(each) / n if n else math.nan
    return Score(name, value, n, f"per 100 predictions|{SIGNATURES[name]}", None, parts=parts, per_example=each)


SIGNATURES = {
    "empty": "nothing but white space",
    "cut": "ended by generation.max_new_tokens",
    "copied": f"{COPIED_WORDS} words or more that stand in the source, but for case and spaces",
    "repeated4": f"{REPEATED_WORDS} words in a row occur twice; characters of scripts without spaces",
}
"""What makes a prediction count."""


def distinct(name: str, order: int, predictions: Sequence[str], targets: Sequence[str]) -> Score:
    """Return different n-grams per 100 n-grams.

    The bootstrap cannot give the interval, as texts drawn twice make any sample less varied; the jackknife (Efron and Stein
    1981, doi.org/10.1214/aos/1176345462) leaves out each text once, and its variance is rather too large than too small.
    """
    grams = [ngrams(split_words(text), order) for text in predictions]
    value, values = without_each(grams)
    n, low, high = len(grams), None, None
    if n > 1 and all(map(math.isfinite, values)):
        mean = sum(values) / n
        half = 1.96 * math.sqrt((n - 1) / n * sum((each - mean) ** 2 for each in values))
        low, high = max(0.0, value - half), min(100.0, value + half)
    parts = {"references": without_each([ngrams(split_words(text), order) for text in targets])[0]} if n else {}
    signature = f"{order}-grams of words, corpus|tokenizer:unicode|interval:jackknife"
    return Score(name, value, n, signature, None, low=low, high=high, parts=parts)


def without_each(grams: Sequence[Sequence[tuple[str, ...]]]) -> tuple[float, list[float]]:
    """Return different n-grams per 100 in all texts, and in all texts but one, for each of them."""
    counts = Counter(gram for each in grams for gram in each)
    total = sum(counts.values())
    own = [sum(counts[gram] == times for gram, times in Counter(each).items()) for each in grams]  # in no other text
    values = [percent(len(counts) - lost, total - len(each)) for lost, each in zip(own, grams, strict=True)]
    return percent(len(counts), total), values


def percent(part: int, whole: int) -> float:
    """100 part / whole; not a number where there is nothing."""
    return 100 * part / whole if whole else math.nan


def ngrams(words: Sequence[str], order: int) -> list[tuple[str, ...]]:
    """All runs of `order` words."""
    return [tuple(words[start : start + order]) for start in range(len(words) - order + 1)]


def is_empty(text: str) -> bool:
    """Whether there is nothing to read."""
    return not text.strip()


def repeats_itself(text: str) -> bool:
    """Whether some four words in a row occur twice; of scripts without spaces, four characters."""
    grams = ngrams(split_words(text), REPEATED_WORDS)
    return len(set(grams)) < len(grams)


def is_copied(text: str, source: str) -> bool:
    """Whether the whole text stands in its source, apart from spaces, case and the last full stop."""
    if len(split_words(text)) < COPIED_WORDS:
        return False
    return " ".join(text.lower().rstrip(" .。\n").split()) in " ".join(source.lower().split())

"""Texts that are empty, cut, copied, repetitive or all alike, counted by hand."""

# ruff: noqa: RUF001 (letters and marks of other scripts are what is tested)

import math

import numpy as np
import pytest

from llmft.errors import DataError
from llmft.metrics.health import health, is_copied
from llmft.metrics.intervals import with_interval

SOURCES = ["the quick brown fox jumps over the dog", "one", "two", "three"]
PREDICTIONS = ["The quick brown fox jumps.", " ", "so it goes on so it goes on", "东京东京东京东京"]
REFERENCES = [["a fox", "the quick brown fox jumps"], ["one"], ["la la la la la la"], ["tre"]]


def found(**given):
    return {score.name: score for score in health(PREDICTIONS, REFERENCES, **given)}


def test_shares():
    scores = found(sources=SOURCES, finish_reasons=["stop", "stop", "length", "length"])
    shares = {name: scores[name].value for name in ("empty", "cut", "copied", "repeated4")}
    assert shares == {"empty": 25, "cut": 50, "copied": 25, "repeated4": 50}
    assert scores["empty"].per_example == (0, 100, 0, 0)
    usual = {name: scores[name].parts.get("references") for name in shares}
    assert usual == {"empty": 0, "cut": None, "copied": 0, "repeated4": 25}  # the first reference of each row
    assert all(scores[name].higher_is_better is None for name in shares)


@pytest.mark.parametrize(
    ("text", "source", "copied"),
    [
        ("The quick  brown fox JUMPS.", "Then the quick brown fox jumps over it.", True),
        ("the quick brown fox", "the quick brown fox", False),  # four words
        ("the quick brown fox leaps", "the quick brown fox jumps", False),
        ("今天天气很好。", "他说今天天气很好，我们去。", True),
        ("今天天气不好。", "他说今天天气很好，我们去。", False),
        ("", "anything", False),
    ],
)
def test_copies(text, source, copied):
    assert is_copied(text, source) is copied


def test_distinct():
    """Words: 5 + 0 + 8 of 4 kinds + 8 characters of 2: 11 of 21. Pairs: 4; so it goes on so: 4 of 7; 2 of 7: 10 of 18."""
    scores = found()
    assert scores["distinct1"].value == pytest.approx(100 * 11 / 21)
    assert scores["distinct2"].value == pytest.approx(100 * 10 / 18)
    # a fox; one; la x 6; tre
    assert scores["distinct1"].parts == {"references": pytest.approx(100 * 5 / 10)}
    assert scores["distinct1"].higher_is_better is None


def test_what_is_not_known_is_not_scored():
    assert list(found()) == ["empty", "distinct1", "distinct2", "repeated4"]


def test_the_interval_of_distinct_is_the_jackknifes():
    """Each text left out in turn, counted anew."""
    random = np.random.default_rng(0)
    texts = [" ".join(f"w{int(word)}" for word in random.zipf(1.5, 8)) for _ in range(60)]
    score = health(texts, [["x"]] * 60)[2]

    def distinct2(some):
        pairs = [pair for text in some for pair in zip(text.split(), text.split()[1:], strict=False)]
        return 100 * len(set(pairs)) / len(pairs)

    each = np.array([distinct2(texts[:place] + texts[place + 1 :]) for place in range(60)])
    half = 1.96 * math.sqrt(59 / 60 * ((each - each.mean()) ** 2).sum())
    assert score.value == pytest.approx(distinct2(texts))
    assert (score.low, score.high) == pytest.approx((score.value - half, score.value + half))
    assert with_interval(score, 0) is score
    drawn = [distinct2([texts[place] for place in random.integers(60, size=60)]) for _ in range(200)]
    assert np.mean(drawn) < score.low  # why it is not the bootstrap's


def test_nothing_to_look_at():
    assert all(math.isnan(score.value) for score in health([], []))
    empty = {score.name: score for score in health([""], [[""]])}
    assert empty["empty"].value == 100
    assert math.isnan(empty["distinct1"].value)


def test_lengths():
    with pytest.raises(DataError, match="health: 1 predictions, but references for 2 rows"):
        health(["a"], [["a"], ["b"]])
    with pytest.raises(ValueError, match="shorter"):
        health(["a", "b"], [["a"], ["b"]], sources=["a"])

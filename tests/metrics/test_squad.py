"""SQuAD scores against the official definition, written a second time here, and against cases counted by hand."""

import collections
import random
import re
import string

import pytest

from llmft.errors import DataError
from llmft.metrics.squad import squad

# The official definition (evaluate-v2.0.py, rajpurkar.github.io/SQuAD-explorer), over a dictionary of questions.


def official_normalize(text):
    text = "".join(character for character in text.lower() if character not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def official_exact(gold, predicted):
    return int(official_normalize(gold) == official_normalize(predicted))


def official_f1(gold, predicted):
    gold_tokens, predicted_tokens = official_normalize(gold).split(), official_normalize(predicted).split()
    if not gold_tokens or not predicted_tokens:
        return int(gold_tokens == predicted_tokens)
    same = sum((collections.Counter(gold_tokens) & collections.Counter(predicted_tokens)).values())
    if same == 0:
        return 0
    precision, recall = same / len(predicted_tokens), same / len(gold_tokens)
    return 2 * precision * recall / (precision + recall)


def official_raw(compute, golds, predicted):
    golds = [gold for gold in golds if official_normalize(gold)] or [""]
    return max(compute(gold, predicted) for gold in golds)


def slow_best_threshold(predictions, golds, scores, odds):
    """Every threshold tried in full: answers whose odds are above it are taken back. The lowest of the best is kept."""
    best, best_threshold = None, None
    for threshold in [float("-inf"), *sorted(set(odds))]:
        total = 0
        for predicted, gold, score, odd in zip(predictions, golds, scores, odds, strict=True):
            if odd > threshold:
                total += not gold  # no answer is given
            else:
                total += score if gold else not predicted
        if best is None or total > best + 1e-12:
            best, best_threshold = total, threshold
    return 100 * best / len(scores), 0.0 if best_threshold == float("-inf") else best_threshold


WORDS = ["Victor", "Hugo", "the", "Paris", "in", "1885", "a", "novel", "U.S."]


def made(seed, num):
    draw = random.Random(seed)

    def text():
        return " ".join(draw.choices(WORDS, k=draw.randint(1, 4)))

    golds = [[] if draw.random() < 0.4 else [text() for _ in range(draw.randint(1, 3))] for _ in range(num)]
    golds = [[gold for gold in each if official_normalize(gold)] for each in golds]
    predictions = [
        "" if draw.random() < 0.25 else draw.choice(each) if each and draw.random() < 0.5 else text() for each in golds
    ]
    odds = [draw.gauss(2.0 if not each else -2.0, 3.0) for each in golds]
    return predictions, golds, odds


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_official_definition(seed):
    predictions, golds, odds = made(seed, 200)
    exact, f1 = squad(predictions, golds, null_odds=odds)
    for score, compute, best in ((exact, official_exact, "best_exact"), (f1, official_f1, "best_f1")):
        expected = [official_raw(compute, gold, text) for gold, text in zip(golds, predictions, strict=True)]
        assert score.per_example == pytest.approx([100 * each for each in expected])
        assert score.value == pytest.approx(100 * sum(expected) / 200)
        has = [value for value, gold in zip(expected, golds, strict=True) if gold]
        no = [value for value, gold in zip(expected, golds, strict=True) if not gold]
        assert score.parts["HasAns"] == pytest.approx(100 * sum(has) / len(has))
        assert score.parts["NoAns"] == pytest.approx(100 * sum(no) / len(no))
        assert (score.parts["HasAns_total"], score.parts["NoAns_total"]) == (len(has), len(no))
        value, threshold = slow_best_threshold(predictions, golds, expected, odds)
        assert score.parts[best] == pytest.approx(value)
        assert score.parts[f"{best}_threshold"] == pytest.approx(threshold)
        assert value > score.value  # the odds do help here


@pytest.mark.parametrize(
    ("prediction", "golds", "exact", "f1"),
    [
        ("The Eiffel Tower", ["eiffel tower!"], 100, 100),  # case, article, punctuation
        ("Eiffel  Tower", ["the Eiffel tower"], 100, 100),
        ("in Paris", ["Paris"], 0, 200 / 3),  # 1 of 2 right, 1 of 1 found
        ("Paris Paris", ["Paris"], 0, 200 / 3),  # a word counts as often as in the answer
        ("London", ["Paris", "in London", "London town"], 0, 200 / 3),
        ("twenty-two", ["twentytwo"], 100, 100),
        ("twenty two", ["twenty-two"], 0, 0),
        ("Paris", [], 0, 0),
        ("", [], 100, 100),
        ("", ["Paris"], 0, 0),
        ("the", [], 100, 100),  # nothing but an article is nothing, for the official script too
        ("", ["the"], 100, 100),
        (None, ["Paris"], 0, 0),
        (None, [], 0, 0),
    ],
)
def test_by_hand(prediction, golds, exact, f1):
    assert [score.value for score in squad([prediction], [golds])] == pytest.approx([exact, f1])


def test_a_threshold_by_hand():
    """Odds -3, -1, 2, 5. None answered: 2 of 4 right. The first answered: 3. The second, wrongly: 2; the third, rightly: 3."""
    exact, f1 = squad(["x", "y", "z", "w"], [["x"], [], ["z"], []], null_odds=[-3, -1, 2, 5])
    assert exact.value == 50
    assert (exact.parts["best_exact"], exact.parts["best_exact_threshold"]) == (75, -3)
    assert (f1.parts["best_f1"], f1.parts["best_f1_threshold"]) == (75, -3)


def test_no_threshold_without_odds():
    assert squad(["x"], [["x"]])[0].parts == {"HasAns": 100.0, "HasAns_total": 1, "NoAns_total": 0}


@pytest.mark.parametrize(
    ("language", "prediction", "gold", "exact", "f1"),
    [
        ("zh", "法国首都巴黎", "巴黎", 0, 200 * (2 / 6) * 1 / (2 / 6 + 1)),
        ("zho_Hans", "《红楼梦》", "红楼梦", 100, 100),
        ("zh", "2008 年", "2008年", 100, 100),  # a number is one word, however it is spaced
        ("ja", "東京都", "東京", 0, 80),
        ("th", "กรุงเทพ", "กรุง", 0, 200 * (3 / 6) * 1 / (3 / 6 + 1)),  # vowels above and below stay with their consonant
        (None, "法国首都巴黎", "巴黎", 0, 0),  # a text without spaces is one word
        ("de", "das Haus", "Haus", 0, 200 / 3),  # articles are English ones only
    ],
)
def test_languages_without_spaces(language, prediction, gold, exact, f1):
    found = squad([prediction], [[gold]], language=language)
    assert [score.value for score in found] == pytest.approx([exact, f1])


def test_the_signature_tells_words_from_characters():
    assert "F1 of words" in squad(["x"], [["x"]], language="en")[1].signature
    assert "F1 of characters" in squad(["x"], [["x"]], language="ja_XX")[1].signature


def test_lengths():
    with pytest.raises(DataError, match="squad: 1 predictions, but references for 2 rows"):
        squad(["x"], [["x"], []])
    with pytest.raises(AssertionError, match="1 null odds, 2 questions"):
        squad(["x", "y"], [["x"], []], null_odds=[0.0])

"""Accuracy, F1 and Matthews of tables counted by hand."""

import math

import numpy as np
import pytest

from llmft.errors import DataError
from llmft.metrics.classification import classification
from llmft.metrics.intervals import with_interval


def rows(table):
    """Predictions and references of a table {(true, predicted): count}."""
    pairs = [pair for pair, count in table.items() for _ in range(count)]
    return [(predicted,) for _, predicted in pairs], [(true,) for true, _ in pairs]


def values(scores):
    return {score.name: score.value for score in scores}


# A diagnostic test on 100 people: 20 of 25 ill found, 10 of 75 healthy called ill.
BINARY = {("ill", "ill"): 20, ("ill", "well"): 5, ("well", "ill"): 10, ("well", "well"): 65}


def test_two_classes():
    """F1 of ill: 2 x 20 / (30 + 25); of well: 2 x 65 / (70 + 75). Matthews: (20 x 65 - 10 x 5) / sqrt(30 x 25 x 70 x 75)."""
    found = values(classification(*rows(BINARY)))
    assert found["accuracy"] == pytest.approx(85)
    assert found["f1_macro"] == pytest.approx(100 * (40 / 55 + 130 / 145) / 2)
    assert found["f1_micro"] == pytest.approx(85)
    assert found["matthews"] == pytest.approx(100 * (20 * 65 - 10 * 5) / math.sqrt(30 * 25 * 70 * 75))


def test_three_classes():
    """The example of sklearn's user guide, recomputed: cats 1 of 2, ants 2 of 2, birds 0 of 1.

    R_K: c = 3 right of s = 5; predicted 3, 0, 2; true 2, 1, 2: (3 x 5 - 10) / sqrt((25 - 13) (25 - 9)).
    """
    true = ["cat", "ant", "cat", "ant", "bird"]
    predicted = ["ant", "ant", "cat", "ant", "cat"]
    scores = classification([(each,) for each in predicted], [(each,) for each in true], labels=["ant", "bird", "cat"])
    found = values(scores)
    assert found["accuracy"] == pytest.approx(60)
    assert found["f1_macro"] == pytest.approx(100 * (4 / 5 + 0 + 2 / 4) / 3)
    assert found["matthews"] == pytest.approx(100 * 5 / math.sqrt(12 * 16))
    parts = {score.name: score.parts for score in scores}
    assert parts["accuracy"]["confusion"] == {"ant": {"ant": 2}, "bird": {"cat": 1}, "cat": {"ant": 1, "cat": 1}}
    table = parts["f1_macro"]["per_class"]
    assert list(table) == ["ant", "bird", "cat"]
    assert table["ant"] == pytest.approx({"precision": 200 / 3, "recall": 100, "f1": 80, "support": 2})
    assert table["bird"] == {"precision": 0, "recall": 0, "f1": 0, "support": 1}
    assert scores[0].per_example == (0, 100, 100, 100, 0)


def test_classes_that_do_not_occur_are_not_in_the_mean():
    found = classification([("a",), ("a",)], [("a",), ("a",)], labels=["a", "b"])
    assert values(found)["f1_macro"] == 100
    assert found[1].parts["per_class"]["b"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}
    # one that was predicted only does count: 0 for b, 2 x 1 / (1 + 2) for a
    assert values(classification([("a",), ("b",)], [("a",), ("a",)]))["f1_macro"] == pytest.approx(100 / 3)


def test_always_the_same_answer_proves_nothing():
    found = values(classification([("a",)] * 4, [("a",), ("a",), ("a",), ("b",)]))
    assert (found["accuracy"], found["matthews"]) == (75, 0)


def test_no_prediction_counts_as_wrong():
    """a: 1 right of 1 predicted, of 2 true; b: 1 of 1 and 1. Matthews with a third class that is never true."""
    scores = classification([("a",), (), ("b",)], [("a",), ("a",), ("b",)])
    found = values(scores)
    assert found["accuracy"] == pytest.approx(200 / 3)
    assert found["f1_micro"] == pytest.approx(100 * 2 * 2 / (2 + 3))
    assert found["f1_macro"] == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert found["matthews"] == pytest.approx(100 * (2 * 3 - 3) / math.sqrt((9 - 3) * (9 - 5)))
    assert scores[0].parts["confusion"]["a"] == {"a": 1, "": 1}


def test_several_labels():
    """x: 2 right, 3 predicted, 2 true; y: 1, 1, 2; z: 0, 0, 1. Row 4 has no label, and gets none."""
    predictions = [("x", "y"), ("x",), ("x",), ()]
    references = [("y", "x"), ("x", "y"), ("z",), ()]
    scores = classification(predictions, references)
    found = values(scores)
    assert found.keys() == {"accuracy", "f1_macro", "f1_micro"}
    assert found["accuracy"] == 50
    assert found["f1_micro"] == pytest.approx(100 * 2 * 3 / (4 + 5))
    assert found["f1_macro"] == pytest.approx(100 * (4 / 5 + 2 / 3 + 0) / 3)
    assert scores[0].parts == {}
    assert "multiple labels" in scores[0].signature


def test_samples():
    predictions, references = rows(BINARY)
    for score in classification(predictions, references)[1:]:
        for seed in range(5):
            places = np.random.default_rng(seed).integers(100, size=100)
            drawn = classification([predictions[place] for place in places], [references[place] for place in places])
            assert score.of_sample(places) == pytest.approx(values(drawn)[score.name])
        found = with_interval(score, 0)
        assert found.low < found.value < found.high


def test_f1_micro_and_accuracy_are_as_sure():
    """One label a row: the same score by another formula, so the same interval."""
    found = {score.name: with_interval(score, 3) for score in classification(*rows(BINARY))}
    assert (found["f1_micro"].low, found["f1_micro"].high) == pytest.approx((found["accuracy"].low, found["accuracy"].high))


def test_nothing_to_score_and_lengths():
    assert all(math.isnan(score.value) for score in classification([], [])[:3])
    with pytest.raises(DataError, match="classification: 1 predictions, but references for 2 rows"):
        classification([("a",)], [("a",), ("b",)])

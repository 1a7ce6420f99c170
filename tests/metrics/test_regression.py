"""Correlations and errors of numbers computed by hand."""

import math

import numpy as np
import pytest

from llmft.errors import DataError
from llmft.metrics.intervals import with_interval
from llmft.metrics.regression import ranks, regression


def values(predictions, references):
    scores = regression([str(each) for each in predictions], [[str(each)] for each in references])
    return {score.name: score.value for score in scores}


def test_by_hand():
    """Differences from the means -1.5 -.5 .5 1.5 and -3 -1 5 -1: products 4.5 + .5 + 2.5 - 1.5, squares 5 and 36.

    Ranks 1 2 3 4 and 1 2.5 4 2.5. From their means: products 2.25 + 0 + .75 + 0, squares 5 and 4.5.
    """
    found = values([1, 2, 3, 4], [0, 2, 8, 2])
    assert found["pearson"] == pytest.approx(100 * 6 / math.sqrt(5 * 36))
    assert found["spearman"] == pytest.approx(100 * 3 / math.sqrt(5 * 4.5))
    assert found["mae"] == pytest.approx((1 + 0 + 5 + 2) / 4)


def test_order_is_all_that_spearman_sees():
    found = values([1, 10, 100, 1000], [1, 2, 3, 4])
    assert found["spearman"] == pytest.approx(100)
    assert found["pearson"] < 90
    assert values([1, 2, 3], [3, 2, 1]) == {
        "pearson": pytest.approx(-100),
        "spearman": pytest.approx(-100),
        "mae": pytest.approx(4 / 3),
    }


def test_equal_values_share_the_mean_of_their_ranks():
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0, 3.0])).tolist() == [4, 1, 4, 2, 4]


@pytest.mark.parametrize(("predictions", "references"), [([2, 2, 2], [1, 2, 3]), ([1, 2, 3], [2, 2, 2]), ([], [])])
def test_no_correlation_of_equal_values(predictions, references):
    found = values(predictions, references)
    assert math.isnan(found["pearson"])
    assert math.isnan(found["spearman"])


def test_directions_and_intervals():
    random = np.random.default_rng(0)
    true = random.normal(size=200)
    found = [
        with_interval(score, 0)
        for score in regression([str(each) for each in true + random.normal(size=200)], [[str(each)] for each in true])
    ]
    assert [score.higher_is_better for score in found] == [True, True, False]
    # Fisher's z: atanh r +- 1.96 / sqrt(n - 3)
    z, half = math.atanh(found[0].value / 100), 1.96 / math.sqrt(197)
    assert (found[0].low, found[0].high) == pytest.approx((100 * math.tanh(z - half), 100 * math.tanh(z + half)), abs=2)
    assert found[1].low < found[1].value < found[1].high
    assert found[2].low < found[2].value < found[2].high


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (["1", "good"], [["1"], ["2"]], "row 2: the prediction is 'good'; expected a finite number"),
        (["1", "nan"], [["1"], ["2"]], "row 2: the prediction is 'nan'"),
        (["1"], [["inf"]], "row 1: the reference is 'inf'"),
        (["1"], [["1"], ["2"]], "1 predictions, but references for 2 rows"),
        (["1"], [[]], "row 1: the references are"),
    ],
)
def test_what_is_no_number(predictions, references, message):
    with pytest.raises(DataError, match=message):
        regression(predictions, references)

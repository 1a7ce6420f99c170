"""Bootstrap intervals and paired tests where the answer is known without them."""

import math

import numpy as np
import pytest

from llmft.metrics.intervals import RESAMPLES, paired, resampled_means, with_interval
from llmft.metrics.score import Score


def score(values, **options):
    return Score("s", sum(values) / max(1, len(values)), len(values), "sig", per_example=tuple(map(float, values)), **options)


def test_equal_values_leave_no_doubt():
    found = with_interval(score([3.0] * 20), seed=0)
    assert (found.low, found.high) == (3.0, 3.0)


def test_the_interval_is_the_normal_one_for_many_values():
    """Mean +- 1.96 standard errors (central limit theorem), here of 2000 draws."""
    values = np.random.default_rng(5).normal(10, 4, 2000)
    found = with_interval(score(values.tolist()), seed=1)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert found.low == pytest.approx(values.mean() - half, abs=0.08 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.08 * half)


def test_a_share_of_right_answers():
    """300 of 1000: the binomial interval 0.3 +- 1.96 sqrt(0.3 x 0.7 / 1000)."""
    found = with_interval(score([1.0] * 300 + [0.0] * 700), seed=2)
    assert (found.low, found.high) == pytest.approx((0.2716, 0.3284), abs=0.003)


def test_it_covers_the_truth_95_times_in_100():
    random = np.random.default_rng(7)
    covered = 0
    for trial in range(200):
        found = with_interval(score(random.exponential(1.0, 80).tolist()), seed=trial)
        covered += found.low <= 1.0 <= found.high
    assert 0.88 <= covered / 200 <= 0.98  # percentile intervals of 80 skewed values fall a little short


def test_the_seed_alone_decides():
    values = np.random.default_rng(0).normal(size=50)
    assert np.array_equal(resampled_means(values, 3), resampled_means(values, 3))
    assert not np.array_equal(resampled_means(values, 3), resampled_means(values, 4))


def test_slices_of_a_large_set_are_all_drawn():
    values = np.random.default_rng(0).normal(size=30_000)
    means = resampled_means(values, 0)
    assert len(means) == RESAMPLES
    assert len(np.unique(means)) == RESAMPLES  # no slice is drawn twice
    assert means.std() == pytest.approx(values.std() / math.sqrt(30_000), rel=0.1)


def test_scores_that_are_no_means_stay_as_they_are():
    bare = Score("bleu", 30.0, 100, "sig")
    assert with_interval(bare, 0) is bare
    own = score([1.0, 2.0], low=0.5, high=3.0)
    assert with_interval(own, 0) is own


def of_sample(compute, n, **options):
    return Score("s", compute(np.arange(n)), n, "sig", of_sample=compute, **options)


def test_a_score_of_samples_that_is_a_mean_has_the_interval_of_the_mean():
    values = np.random.default_rng(4).normal(10, 4, 300)
    mean = with_interval(score(values), seed=9)
    found = with_interval(of_sample(lambda places: values[places].mean(), 300), seed=9)
    assert (found.low, found.high) == pytest.approx((mean.low, mean.high))
    shown = with_interval(of_sample(lambda places: values[places].mean(), 300, per_example=(0.0,) * 300), seed=9)
    assert (shown.low, shown.high) == (found.low, found.high)  # values for display do not count


def test_a_ratio_of_sums():
    """Total over total: the delta method's standard error, sqrt(mean((x - ratio y)^2) / n) / mean(y)."""
    random = np.random.default_rng(6)
    below = random.integers(1, 20, 1000)
    above = below * random.normal(2.0, 0.5, 1000)
    ratio = above.sum() / below.sum()
    half = 1.96 * math.sqrt(((above - ratio * below) ** 2).mean() / 1000) / below.mean()
    found = with_interval(of_sample(lambda places: above[places].sum() / below[places].sum(), 1000), seed=0)
    assert found.value == pytest.approx(ratio)
    assert (found.low - ratio, found.high - ratio) == pytest.approx((-half, half), abs=0.1 * half)


def test_samples_without_a_value_are_left_out():
    """Of two examples half the samples draw one of them twice; the score of both is 7 whatever the order."""
    found = with_interval(of_sample(lambda places: 7.0 if len(set(places.tolist())) == 2 else math.nan, 2), seed=0)
    assert (found.low, found.high) == (7.0, 7.0)


def test_one_example_and_an_undefined_value_have_no_interval():
    assert with_interval(score([5.0]), 0).low is None
    assert with_interval(of_sample(lambda places: 5.0, 1), 0).low is None
    assert with_interval(of_sample(lambda places: math.nan, 5), 0).low is None


def test_paired_scores_of_samples_see_the_same_samples():
    """Errors of 20 in both, a difference of 1 in each example: its interval shows the pairs, not the errors."""
    values = np.random.default_rng(1).normal(50, 20, 40)
    before, after = (of_sample(lambda places, plus=plus: (values + plus)[places].mean(), 40) for plus in (0.0, 1.0))
    found = paired(before, after, seed=0)
    assert (found.difference, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0))
    assert (found.p, found.n) == (1 / RESAMPLES, 40)
    means = paired(score(values), score(values + 1.0), seed=0)
    assert (means.low, means.high, means.p) == pytest.approx((found.low, found.high, found.p))


def test_paired_scores_need_the_same_examples():
    with pytest.raises(AssertionError, match="3 and 4 examples"):
        paired(of_sample(lambda places: 0.0, 3), of_sample(lambda places: 0.0, 4), seed=0)


def test_paired_no_difference():
    found = paired(score([1.0, 2.0, 3.0]), score([1.0, 2.0, 3.0]), seed=0)
    assert (found.difference, found.low, found.high, found.p, found.n) == (0.0, 0.0, 0.0, 1.0, 3)


def test_paired_a_difference_everywhere():
    before = np.random.default_rng(1).normal(50, 20, 40)
    found = paired(score(before), score(before + 2.0), seed=0)
    assert (found.difference, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))
    assert found.p == 1 / RESAMPLES  # smaller ones cannot be told apart with that many samples


def test_paired_looks_at_pairs():
    """The scores scatter by 20, the differences by 1: only because they are paired does the test see 0.5."""
    random = np.random.default_rng(2)
    before = random.normal(50, 20, 200)
    after = before + random.normal(0.5, 1.0, 200)
    found = paired(score(before), score(after), seed=0)
    assert found.p < 0.001
    assert found.low > 0.3
    shuffled = paired(score(before), score(random.permutation(after)), seed=0)
    assert shuffled.p > 0.1


def test_paired_p_is_that_of_the_normal_test():
    differences = np.random.default_rng(3).normal(size=400)
    differences += 1.5 * differences.std() / 20 - differences.mean()  # 1.5 standard errors above zero: p = 0.1336
    found = paired(score(np.zeros(400)), score(differences), seed=0)
    assert found.p == pytest.approx(0.1336, abs=0.03)
    mirrored = paired(score(differences), score(np.zeros(400)), seed=0)
    assert (mirrored.difference, mirrored.p) == pytest.approx((-found.difference, found.p))


@pytest.mark.parametrize(("n", "p"), [(1, 1.0), (2, 0.5), (4, 0.125), (10, 2 / 1024), (30, 1 / RESAMPLES)])
def test_few_examples_prove_little(n, p):
    """All n better: heads n times in a row, or tails, is what a fair coin does with probability 2 / 2^n."""
    found = paired(score([1.0] * n), score([3.0] * n), seed=0)
    assert (found.difference, found.n, found.p) == (2.0, n, p)

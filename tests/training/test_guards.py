"""What stops a run: numbers that are not finite, gradients that jump, and what counts as better."""

import math

import pytest
import torch

from llmft.errors import Diverged
from llmft.training.guards import Scene, check_finite, check_spikes, check_updated, improved, is_spike

ROWS = [str(number) for number in range(10)]
SCENE = Scene(7, lambda: ROWS, lambda: "out/checkpoints/step-000006")
SHOWN = "on the rows 0, 1, 2, 3, 4, 5, 6, 7 ..."
KEPT = "the last good checkpoint is out/checkpoints/step-000006."
ADVICE = "Lower optimizer.lr, raise schedule.warmup, or lower optimizer.max_grad_norm."


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (1.0, math.inf), (math.inf, math.nan)])
def test_not_finite(loss, norm):
    with pytest.raises(Diverged) as error:
        check_finite(SCENE, loss, norm, list)
    assert (
        str(error.value)
        == f"step 7: loss {loss:g}, gradient norm {norm:g} {SHOWN}; the weights were not updated, {KEPT} {ADVICE}"
    )


def test_before_the_first_checkpoint():
    first = Scene(1, lambda: ["a"], lambda: None)
    with pytest.raises(Diverged, match=r"on the rows a; the weights were not updated, no checkpoint was written yet\. "):
        check_finite(first, math.nan, 1.0, list)
    check_finite(first, 1e30, 0.0, list)


def test_the_cause_is_named():
    state = [("a", torch.zeros(3)), ("a/exp_avg", torch.tensor([1e30])), ("b/exp_avg_sq", torch.tensor([0.0, math.inf]))]
    with pytest.raises(Diverged) as error:
        check_finite(SCENE, math.nan, math.nan, lambda: state)
    expected = f"step 7: loss nan, gradient norm nan, and b/exp_avg_sq is not finite since before this step, {SHOWN}; the weights were not updated, {KEPT}"
    assert str(error.value) == f"{expected} {ADVICE}"


def test_the_cause_is_looked_for_only_where_there_is_one():
    def read():
        raise AssertionError("a pass over all weights before each update")

    check_finite(SCENE, 1.0, 1.0, read)


def test_after_the_update():
    with pytest.raises(Diverged) as error:
        check_updated(SCENE, [("w", torch.tensor([0.0])), ("v", torch.tensor([math.nan]))])
    expected = f"step 7: v is not finite after the update {SHOWN}; the updated weights were thrown away, {KEPT} {ADVICE}"
    assert str(error.value) == expected


@pytest.mark.parametrize(
    ("norm", "norms", "factor", "expected"),
    [
        (1e9, [1.0] * 64, None, False),
        (1e9, [1.0] * 15, 2.0, False),  # too few to know what is usual
        (2.0, [1.0] * 16, 2.0, False),
        (2.01, [1.0] * 16, 2.0, True),
        (7.9, [1.0] * 20 + [4.0] * 21, 2.0, False),  # the median of 41 is the 21st: 4
        (8.1, [1.0] * 20 + [4.0] * 21, 2.0, True),
    ],
)
def test_spikes(norm, norms, factor, expected):
    assert is_spike(norm, norms, factor) is expected


def test_too_many_spikes_in_a_row():
    check_spikes(SCENE, 30.0, [1.0, 2.0, 3.0], 7)
    with pytest.raises(Diverged) as error:
        check_spikes(SCENE, 30.0, [1.0, 2.0, 3.0], 8)
    expected = (
        f"step 7: gradient norm 30, the 8th in a row far above the usual 2, {SHOWN}; the weights were not updated, {KEPT}"
    )
    assert str(error.value) == f"{expected} {ADVICE}"


@pytest.mark.parametrize(
    ("value", "best", "higher", "expected"),
    [
        (1.0, None, False, True),
        (math.nan, None, True, False),
        (0.9, 1.0, False, True),
        (1.0, 1.0, False, False),
        (1.0, 1.0, True, False),
        (1.1, 1.0, True, True),
        (math.inf, 1.0, True, False),
        (math.nan, 1.0, False, False),
    ],
)
def test_improved(value, best, higher, expected):
    assert improved(value, best, higher) is expected

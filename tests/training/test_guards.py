"""What stops a run: numbers that are not finite, and what counts as better."""

import math

import pytest

from llmft.errors import Diverged
from llmft.training.guards import check_finite, improved


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (1.0, math.inf), (math.inf, math.nan)])
def test_not_finite(loss, norm):
    with pytest.raises(Diverged) as error:
        check_finite(7, loss, norm, [str(number) for number in range(10)], "out/checkpoints/step-000006")
    assert str(error.value) == (
        f"step 7: loss {loss:g}, gradient norm {norm:g} on the rows 0, 1, 2, 3, 4, 5, 6, 7 ...; the weights were not updated, "
        "the last good checkpoint is out/checkpoints/step-000006. "
        "Lower optimizer.lr, raise schedule.warmup, or lower optimizer.max_grad_norm."
    )


def test_before_the_first_checkpoint():
    with pytest.raises(Diverged, match=r"on the rows a; the weights were not updated, no checkpoint was written yet\. "):
        check_finite(1, math.nan, 1.0, ["a"], None)
    check_finite(1, 1e30, 0.0, ["a"], None)


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

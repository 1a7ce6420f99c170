"""Learning rates by hand, and when things are due."""

import pytest

from llmft.config.every import Every
from llmft.config.schema import Schedule, Training
from llmft.training.pace import count_steps, due, warmup_steps
from llmft.training.schedule import constant, cosine, linear, lr_factor, wsd


def floored(function, **options):
    return lambda progress: function(progress, **options)


FACTORS = {
    # 10 steps, of which 2 are warm-up: 1/3, 2/3, then 8 steps from the peak on
    "constant": (constant, [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1, 1, 1]),
    "linear": (linear, [1 / 3, 2 / 3, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
    "linear to 0.2": (floored(linear, floor=0.2), [1 / 3, 2 / 3, 1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]),
    # (1 + cos(pi k/8)) / 2
    "cosine": (cosine, [1 / 3, 2 / 3, 1, 0.961940, 0.853553, 0.691342, 0.5, 0.308658, 0.146447, 0.038060]),
    "cosine to 0.5": (
        floored(cosine, floor=0.5),
        [1 / 3, 2 / 3, 1, 0.980970, 0.926777, 0.845671, 0.75, 0.654329, 0.573223, 0.519030],
    ),
    "wsd": (floored(wsd, decay=0.5), [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]),
    "wsd to 0.2": (floored(wsd, decay=0.25, floor=0.2), [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1, 1, 0.6]),
}


@pytest.mark.parametrize(("schedule", "expected"), FACTORS.values(), ids=FACTORS)
def test_by_hand(schedule, expected):
    assert [lr_factor(schedule, step, 10, 2) for step in range(10)] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("schedule", [constant, linear, cosine, wsd])
def test_without_warmup_it_begins_at_the_peak_and_never_at_zero(schedule):
    factors = [lr_factor(schedule, step, 7, 0) for step in range(7)]
    assert factors[0] == 1.0
    assert all(0 < factor <= 1 for factor in factors)
    assert lr_factor(schedule, 0, 1, 0) == 1.0


@pytest.mark.parametrize(
    ("warmup", "steps", "expected"), [(0.03, 100, 3), (0.0, 100, 0), (0.5, 5, 2), (1.0, 100, 1), (20, 100, 20)]
)
def test_warmup_is_a_share_below_one(warmup, steps, expected):
    assert warmup_steps(Schedule(warmup=warmup), steps) == expected


@pytest.mark.parametrize(
    ("epochs", "max_steps", "expected"), [(3.0, None, 30), (0.25, None, 3), (0.01, None, 1), (3.0, 7, 7), (1.05, None, 11)]
)
def test_count_steps(epochs, max_steps, expected):
    assert count_steps(Training(epochs=epochs, max_steps=max_steps), steps_per_epoch=10) == expected


DUE = {
    "every 3 steps": (Every(3, "steps"), 10, [3, 6, 9, 12, 15, 18]),
    "every step": (Every(1, "steps"), 10, list(range(1, 21))),
    "every epoch": (Every(1, "epochs"), 10, [10, 20]),
    "every half epoch": (Every(0.5, "epochs"), 10, [5, 10, 15, 20]),
    "every third of an epoch of 10": (Every(1 / 3, "epochs"), 10, [4, 7, 10, 14, 17, 20]),
    "every tenth": (Every(0.1, "epochs"), 10, list(range(1, 21))),
    "oftener than every step": (Every(0.01, "epochs"), 10, list(range(1, 21))),
    "every epoch and a half": (Every(1.5, "epochs"), 5, [8, 15]),
    "never": (None, 10, []),
}


@pytest.mark.parametrize(("every", "steps_per_epoch", "expected"), DUE.values(), ids=DUE)
def test_due(every, steps_per_epoch, expected):
    assert [step for step in range(1, 21) if due(step, every, steps_per_epoch)] == expected


def test_fractions_do_not_drift():
    """0.1 has no exact binary form: over 1000 epochs of 10 steps every step is due, none twice and none left out."""
    assert sum(due(step, Every(0.1, "epochs"), 10) for step in range(1, 10_001)) == 10_000
    assert sum(due(step, Every(0.3, "epochs"), 10) for step in range(1, 30_001)) == 10_000

"""Learning-rate schedules: progress through the run (0..1, warm-up not counted) -> factor of optimizer.lr."""

import math
from collections.abc import Callable

Schedule = Callable[[float], float]


def constant(progress: float) -> float:
    """Stay at the peak."""
    return 1.0


def linear(progress: float, floor: float = 0.0) -> float:
    """Fall in a straight line to `floor` x the peak."""
    return floor + (1 - floor) * (1 - progress)


def cosine(progress: float, floor: float = 0.0) -> float:
    """Fall along half a cosine to `floor` x the peak (Loshchilov and Hutter 2017, arXiv:1608.03983)."""
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def wsd(progress: float, decay: float = 0.2, floor: float = 0.0) -> float:
    """Warm-up, stable, decay: stay at the peak, fall in a straight line over the last `decay` share (arXiv:2404.06395)."""
    if progress <= 1 - decay:
        return 1.0
    return floor + (1 - floor) * (1 - progress) / decay


def lr_factor(schedule: Schedule, step: int, steps: int, warmup_steps: int) -> float:
    """Factor for the update that ends `step` (counted from 0) of `steps`.

    Warm-up rises in a straight line and reaches the peak at step `warmup_steps`; the first update is never zero.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return schedule((step - warmup_steps) / max(1, steps - warmup_steps))

"""When things are due: how many steps a run has, and at which of them it validates and saves."""

import math

from llmft.config.every import Every
from llmft.config.schema import Schedule, Training


def count_steps(training: Training, steps_per_epoch: int) -> int:
    """Optimizer steps of the run."""
    if training.max_steps is not None:
        return training.max_steps
    return max(1, math.ceil(training.epochs * steps_per_epoch))


def warmup_steps(schedule: Schedule, steps: int) -> int:
    """Steps of warm-up; a setting below 1 is a share of all steps."""
    return round(schedule.warmup * steps) if schedule.warmup < 1 else int(schedule.warmup)


def due(step: int, every: Every | None, steps_per_epoch: int) -> bool:
    """Tell whether something that happens `every` so often happens after finished step `step` (counted from 1)."""
    if every is None:
        return False
    interval = every.value * (steps_per_epoch if every.unit == "epochs" else 1)
    # a fraction of an epoch need not be a whole number of steps: due when another multiple of it was passed
    return math.floor(step / interval + 1e-9) > math.floor((step - 1) / interval + 1e-9)

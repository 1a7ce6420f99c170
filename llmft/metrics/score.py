"""A score is a measurement: a value with its interval, the count behind it and the signature of how it was taken."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Score:
    """One named score of one set of predictions.

    `low` and `high` bound the 95 % bootstrap interval. `per_example` holds one value per example in input order, for paired
    tests and for predictions.jsonl; empty where examples have no value of their own. `of_sample` computes the score of the
    examples at the given places, for scores that are no mean over examples. `higher_is_better` is None where a score describes
    and neither direction is the goal. `parts` holds what the value is made of.
    """

    name: str
    value: float
    n: int
    signature: str
    higher_is_better: bool | None = True
    low: float | None = None
    high: float | None = None
    parts: dict[str, Any] = field(default_factory=dict)
    per_example: tuple[float, ...] = ()
    of_sample: Callable[[np.ndarray], float] | None = field(default=None, compare=False, repr=False)

    @property
    def row_name(self) -> str:
        """What one value of `per_example` is called: for a corpus score another name, as the mean of its rows is not the score."""
        return f"{self.name}_of_row" if self.of_sample else self.name

"""A score is a measurement: a value with its interval, the count behind it and the signature of how it was taken."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Score:
    """One named score of one set of predictions.

    `low` and `high` bound the 95 % bootstrap interval. `per_example` holds one value per example in input order, for paired
    tests and for predictions.jsonl; empty where the score is not a mean of examples. `parts` holds what the value is made of.
    """

    name: str
    value: float
    n: int
    signature: str
    higher_is_better: bool = True
    low: float | None = None
    high: float | None = None
    parts: dict[str, float] = field(default_factory=dict)
    per_example: tuple[float, ...] = ()

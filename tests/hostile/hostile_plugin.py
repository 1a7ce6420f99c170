"""A plug-in that means well and says too much: its errors hold what it was let in with, as those of HTTP libraries do."""

import os
from collections.abc import Sequence
from typing import Any

import torch

from llmft.metrics.score import Score


def length(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[Score]:
    """Letters per prediction; with LEAK in the environment, an error that tells the value of the variables named there."""
    _leak()
    return [Score("length", sum(map(len, predictions)) / max(1, len(predictions)), n=len(predictions), signature="letters")]


class Optimizer(torch.optim.SGD):
    """Plain gradient descent, until LEAK is in the environment."""

    def __init__(self, params: Any, lr: float, weight_decay: float):
        super().__init__(params, lr=lr, weight_decay=weight_decay)
        self.taken = 0

    def step(self, closure: Any = None) -> Any:
        """One update; the first is always well, which llmft takes to try it."""
        if self.taken:
            _leak()
        self.taken += 1
        return super().step(closure)


def _leak() -> None:
    if leak := os.environ.get("LEAK"):
        raise RuntimeError("401 Unauthorized: " + " ".join(f"{name}={os.environ[name]}" for name in leak.split(",")))

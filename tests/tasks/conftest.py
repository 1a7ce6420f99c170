"""Formulations, and learners with a tiny model as `open_training` makes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llmft.config import names
from llmft.config.bind import bind
from llmft.config.schema import Formulation, Generation, Task
from llmft.models.load import load_family, load_pretrained
from llmft.models.ragged import layers
from llmft.models.ragged.halves import FeedForwardHalf
from llmft.tasks.bound import bind_task
from llmft.tasks.formulation import Learner
from llmft.tasks.open import head_of
from llmft.tasks.text_to_text import TextToText


@pytest.fixture
def formulate() -> Callable[..., TextToText]:
    """Make a formulation; arguments are settings of the task."""

    def make(**settings: Any) -> Any:
        task = Task(**settings)
        bound = bind_task(task, [])
        return bound.formulation(task, bound, 42)

    return make


@pytest.fixture
def open_learner(tiny: Path) -> Callable[..., Learner]:
    """Make a learner on a tiny model; further arguments are settings of the task."""

    def make(name: str = "llama", max_new_tokens: int = 8, num_beams: int = 1, **settings: Any) -> Any:
        task = Task(**settings)
        learner = bind(load_family(tiny / name).value, names.LEARNERS[task.formulation.value], [], "test")
        pretrained = load_pretrained(tiny / name, torch.float32, torch.device("cpu"), **head_of(learner, task))
        pretrained.model.eval()
        generation = Generation(max_new_tokens=max_new_tokens, num_beams=num_beams, batch_size=3)
        bound = bind_task(task, [])
        return learner(bound.formulation(task, bound, 42), pretrained, generation, torch.float32)

    return make


@pytest.fixture
def open_text(open_learner: Callable[..., Learner]) -> Callable[..., Learner]:
    """Make a text_to_text learner on a tiny decoder; further arguments are settings of the task."""

    def make(name: str = "llama", **settings: Any) -> Learner:
        return open_learner(name, formulation=Formulation.text_to_text, **settings)

    return make


@pytest.fixture
def rows_fed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows come into each feed-forward part that is written out, call by call."""
    rows: list[int] = []

    class Counted:
        @staticmethod
        def apply(*given: Any) -> Any:
            rows.append(len(given[4]))
            return FeedForwardHalf.apply(*given)

    monkeypatch.setattr(layers, "FeedForwardHalf", Counted)
    return rows

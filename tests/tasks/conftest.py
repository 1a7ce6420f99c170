"""A task with a tiny model, as `open_training` makes it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llmft.config.schema import Generation, Task
from llmft.models.load import load_pretrained
from llmft.tasks.bound import bind_task
from llmft.tasks.text_to_text import TextToText


@pytest.fixture
def open_text(tiny: Path) -> Callable[..., TextToText]:
    """Make a text_to_text task on a tiny model; further arguments are settings of the task."""

    def make(name: str = "llama", max_new_tokens: int = 8, **settings: Any) -> TextToText:
        pretrained = load_pretrained(tiny / name, torch.float32, torch.device("cpu"))
        pretrained.model.eval()
        task = Task(**settings)
        generation = Generation(max_new_tokens=max_new_tokens, batch_size=3)
        return TextToText(task, bind_task(task, []), pretrained, generation, torch.float32, 42)

    return make

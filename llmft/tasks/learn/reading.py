"""Running a model for its predictions."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from llmft.models.computing import computing
from llmft.models.load import Pretrained
from llmft.runs import signals


@contextmanager
def reading(pretrained: Pretrained, precision: torch.dtype) -> Iterator[None]:
    """Inside the block the model only reads: no dropout, no gradients, and a signal waits for the block's end."""
    model = pretrained.model
    training = model.training
    model.eval()
    try:
        with signals.deferred(), torch.no_grad(), computing(model, precision):
            yield
    finally:
        model.train(training)

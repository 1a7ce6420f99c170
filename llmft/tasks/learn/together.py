"""Padded batches: documents that share a forward pass, masked by length, where that proves equal to one at a time."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from llmft.data.encode import Encoded
from llmft.hardware.determinism import isolated
from llmft.models.load import Pretrained
from llmft.models.path_check import LOSS_TOLERANCE as TOLERANCE
from llmft.models.path_check import PathCheck

Loss = Callable[[Sequence[Encoded]], Tensor]


def summed(loss: Loss, documents: Sequence[Encoded], fast: bool) -> Tensor:
    """Return the loss of all documents together, or of one at a time."""
    if fast:
        return loss(documents)
    return torch.stack([loss([document]) for document in documents]).sum()


def check_together(loss: Loss, documents: Sequence[Encoded], pretrained: Pretrained, precision: torch.dtype) -> PathCheck:
    """Compare the loss of a few documents in one padded batch with that of one at a time."""
    model, training = pretrained.model, pretrained.model.training
    model.eval()
    found = []
    try:
        for fast in (True, False):
            with torch.no_grad(), isolated(0):  # what is masked at random is the same both times
                found.append(summed(loss, documents, fast).item())
    finally:
        model.train(training)
    together, alone = found
    difference = abs(together - alone) / max(abs(alone), 1e-9)
    if not difference <= TOLERANCE[precision]:
        return PathCheck(False, f"losses differ by {difference:.1e}, allowed are {TOLERANCE[precision]:.0e}", difference)
    return PathCheck(True, "padded batches equal one document at a time", difference)

"""Documents that share a forward pass, laid end to end or padded, where that proves equal to one at a time."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum

import torch
from torch import Tensor

from llmft.data.batch import cut, cut_padded
from llmft.data.encode import Encoded
from llmft.hardware.determinism import isolated
from llmft.models.attention import UnsupportedAttention
from llmft.models.forward import Path
from llmft.models.load import Pretrained
from llmft.models.path_check import GRADIENT_TOLERANCE, LOSS_TOLERANCE, PathCheck, loss_and_gradient_differences


class Form(Enum):
    """How documents stand in a batch, the fastest first."""

    flat = "documents laid end to end"
    padded = "padded batches"
    alone = "one document at a time"


Loss = Callable[[Sequence[Encoded], Form], Tensor]
"""Loss of documents in one batch, of either of the first two forms."""


def summed(loss: Loss, documents: Sequence[Encoded], form: Form) -> Tensor:
    """Return the loss of all documents together, or of one at a time."""
    if form is not Form.alone:
        return loss(documents, form)
    return torch.stack([loss([document], Form.padded) for document in documents]).sum()


def cut_for(form: Form, documents: Sequence[Encoded], micro_tokens: int) -> list[list[Encoded]]:
    """Cut a step's documents into micro-batches of at most `micro_tokens` tokens, padding included where there is some."""
    return (cut if form is Form.flat else cut_padded)(documents, micro_tokens)


def check_together(
    loss: Loss, documents: Sequence[Encoded], pretrained: Pretrained, precision: torch.dtype, against_flat: str | None
) -> tuple[PathCheck, Form]:
    """Choose the fastest form whose loss and gradients, of a few documents, are those of one document at a time.

    against_flat: why documents cannot be laid end to end, None if they may be.
    """
    if against_flat is None:
        found = compare(loss, documents, pretrained, precision, Form.flat)
        if found.fast:
            return found, Form.flat
        against_flat = found.reason
    found = compare(loss, documents, pretrained, precision, Form.padded)
    found = replace(found, reason=f"{found.reason}; not laid end to end: {against_flat}")
    return found, Form.padded if found.fast else Form.alone


def compare(loss: Loss, documents: Sequence[Encoded], pretrained: Pretrained, precision: torch.dtype, form: Form) -> PathCheck:
    """Hold one form against one document at a time: for the documents, and with another text in the last one's place.

    Were a document to see its neighbours, the others' loss would move with the last one's text.
    """
    model = pretrained.model
    weights = [weight for _, weight in pretrained.trained]

    def by(shared: Form, rows: Sequence[Encoded]) -> Tensor:
        with isolated(0):  # what is masked at random is the same each time
            return summed(loss, rows, shared)

    changed = [*documents[:-1], backwards(documents[-1])]
    try:
        differences = loss_and_gradient_differences(
            model, lambda: by(Form.alone, documents), lambda: by(form, documents), weights
        )
        moved = losses_differ(model, lambda shared: by(shared, changed), form)
    except (UnsupportedAttention, TypeError, RuntimeError) as error:
        # an architecture that is not what it seems fails in its own way: by a keyword, a shape or a mask
        return PathCheck(False, str(error).splitlines()[0])
    for what, difference, allowed in (
        ("losses", max(differences[0], moved), LOSS_TOLERANCE[precision]),
        ("gradients", differences[1], GRADIENT_TOLERANCE[precision]),
    ):
        if not difference <= allowed:
            return PathCheck(False, f"{what} differ by {difference:.1e}, allowed are {allowed:.0e}", *differences)
    path = Path.flat if form is Form.flat else Path.plain
    return PathCheck(True, f"{form.value}: equal to one document at a time", *differences, path)


@torch.no_grad()
def losses_differ(model: torch.nn.Module, loss: Callable[[Form], Tensor], form: Form) -> float:
    """Return by how much the loss in one form differs from that of one document at a time; without dropout."""
    training = model.training
    model.eval()
    try:
        together, alone = loss(form).item(), loss(Form.alone).item()
    finally:
        model.train(training)
    return abs(together - alone) / max(abs(alone), 1e-9)


def backwards(document: Encoded) -> Encoded:
    """Return a document with its words in the opposite order, between its first and its last token."""
    if document.source_ids is not None:
        source = document.source_ids
        return replace(document, source_ids=source[[0, *range(len(source) - 2, 0, -1), len(source) - 1][: len(source)]])
    ids = document.ids
    return replace(document, ids=ids[[0, *range(len(ids) - 2, 0, -1), len(ids) - 1][: len(ids)]])

"""The proof that a fast path computes what transformers does: loss and gradients of a few real documents by both."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from llmft.data.batch import Batch
from llmft.hardware.gradients import clear_gradients
from llmft.models.attention import UnsupportedAttention
from llmft.models.flat.decoder import layers_of
from llmft.models.forward import Path, batch_loss
from llmft.models.frozen import Frozen
from llmft.models.rounding import nearest

LOSS_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Of the loss; bf16 keeps 8 bits, and each path rounds its own way."""
GRADIENT_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.2}
"""Of all gradients as one vector. Thirty layers in bf16, each path rounding in its own way, were 0.06 apart."""

NOT_ZERO_STD = 0.02
"""Of what stands in the place of zeros: an update by it is some hundredths of what a layer gives."""

CHECKED_TOKENS = 32
"""Of each document: what differs, differs in these, and a run does not wait for more."""
CHECKED_LOSS = 8
"""Of them those at the end that may carry loss: documents share what stands before, and that has to be checked too."""

# Layers that see more or less than their own document by a mask that transformers would build. Short documents do not
# show it: a chunk longer than all that are compared cuts nothing.
KNOWN_LAYERS = {"full_attention", "sliding_attention"}


@dataclass(frozen=True)
class PathCheck:
    """Which path was taken, why, and how far loss and gradients are from the plain one's; `fast`: any but the plain one."""

    fast: bool
    reason: str
    relative_difference: float | None = None
    gradient_difference: float | None = None
    path: Path = Path.plain


def check_fast_path(
    model: PreTrainedModel, batch: Batch, precision: torch.dtype, shared: Batch | None = None, frozen: Frozen | None = None
) -> PathCheck:
    """Send a few real documents through the paths, and choose the fastest whose loss and gradients are the plain one's.

    The plain path runs every document alone, so a path on which documents touch each other does not pass either.
    shared: the same documents as the written-out layers will get them, what they share laid down once; None: as `batch`.
    """
    if unknown := set(getattr(model.config, "layer_types", None) or ()) - KNOWN_LAYERS:
        return PathCheck(False, f"layers of {', '.join(sorted(unknown))}")
    refused = ""
    if layers_of(model) is not None:
        found = compare(model, batch, shared or batch, precision, Path.flat, frozen)
        if found.fast:
            return found
        refused = f"; layers written out: {found.reason}"
    found = compare(model, batch, batch, precision, Path.ragged)
    return replace(found, reason=found.reason + refused)


def compare(
    model: PreTrainedModel, batch: Batch, given: Batch, precision: torch.dtype, path: Path, frozen: Frozen | None = None
) -> PathCheck:
    """Hold one path, which reads the documents as `given`, against the plain one."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    try:
        differences = loss_and_gradient_differences(
            model,
            lambda: batch_loss(model, batch, precision, Path.plain),
            lambda: batch_loss(model, given, precision, path, frozen),
            weights,
        )
    except (UnsupportedAttention, TypeError, RuntimeError) as error:
        # an architecture that cannot take flat documents fails in its own way: by a keyword, a shape or a mask
        return PathCheck(False, str(error).splitlines()[0])
    for what, difference, allowed in zip(
        ("losses", "gradients"), differences, (LOSS_TOLERANCE[precision], GRADIENT_TOLERANCE[precision]), strict=True
    ):
        if not difference <= allowed:
            return PathCheck(False, f"{what} differ by {difference:.1e}, allowed are {allowed:.0e}", *differences)
    return PathCheck(True, f"{path.value}: equal to one document at a time", *differences, path)


def loss_and_gradient_differences(
    model: nn.Module, plain: Callable[[], Tensor], fast: Callable[[], Tensor], weights: list[nn.Parameter]
) -> tuple[float, float]:
    """Return by how much the loss, and the gradients as one vector, differ, relative to the plain ones; without dropout.

    Weights are rounded to the nearest number, so that the plain pass is transformers' own.

    Weights that are zero, as an adapter's B before its first step, are other numbers meanwhile. Gradients are subtracted where
    they stand, so that no second set of them is held.
    """
    training = model.training
    model.eval()
    try:
        with nearest(model), not_zero(weights), torch.enable_grad():
            expected = plain()
            expected.backward()
            size = norm_of(weights)
            found = fast()
            (-found).backward()
            difference = norm_of(weights)
    finally:
        clear_gradients(weights)
        model.train(training)
    return abs(found.item() - expected.item()) / max(abs(expected.item()), 1e-9), difference / max(size, 1e-9)


@contextmanager
def not_zero(weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """Inside the block weights that are all zero are small random numbers: what stands behind zeros would not be seen."""
    zeros = [weight for weight in weights if not weight.any()]
    try:
        for number, weight in enumerate(zeros):
            generator = torch.Generator(weight.device).manual_seed(number)
            nn.init.normal_(weight, std=NOT_ZERO_STD, generator=generator)
        yield
    finally:
        for weight in zeros:
            nn.init.zeros_(weight)


def norm_of(weights: list[nn.Parameter]) -> float:
    """Return the length of all gradients as one vector."""
    norms = [weight.grad.norm(dtype=torch.float32) for weight in weights if weight.grad is not None]
    return float(torch.stack(norms).norm()) if norms else 0.0

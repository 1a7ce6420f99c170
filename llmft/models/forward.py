"""One forward pass over a ragged batch of a decoder: flat and fast where proven equal, else document by document."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from llmft.data.batch import Batch
from llmft.models.attention import UnsupportedAttention, ragged
from llmft.models.loss import summed_cross_entropy, token_loss

# N flat tokens of a ragged batch, M rows that carry loss, D model width


def ragged_loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Summed loss of the batch in one forward pass: flat tokens, attention per document, vocabulary on loss rows only."""
    stream = batch.stream
    with ragged(model):
        states = model.base_model(
            input_ids=stream.tokens_N[None],
            position_ids=stream.positions_N[None],
            use_cache=False,
            document_lengths=stream.lengths,
        ).last_hidden_state
    return token_loss(states[0][batch.loss_rows_M], model.get_output_embeddings(), batch.targets_M)


def plain_loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Summed loss of the batch as transformers computes it by itself, one document at a time."""
    total = torch.zeros((), device=batch.targets_M.device)
    start, first = 0, 0
    for length in batch.stream.lengths:
        document = batch.stream.tokens_N[start : start + length]
        last = first + int(((batch.loss_rows_M >= start) & (batch.loss_rows_M < start + length)).sum())
        logits_NV = model(input_ids=document[None], use_cache=False).logits[0]
        rows = batch.loss_rows_M[first:last] - start
        total = total + summed_cross_entropy(logits_NV[rows], batch.targets_M[first:last])
        start, first = start + length, last
    return total


@dataclass(frozen=True)
class PathCheck:
    """Whether the fast path equals the plain one on real documents, and how far apart they are."""

    fast: bool
    reason: str
    relative_difference: float | None = None


# Layers that see more or less than their own document by a mask that transformers would build. Short documents do not
# show it: a chunk longer than all that are compared cuts nothing.
KNOWN_LAYERS = {"full_attention", "sliding_attention"}
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}  # of the loss; bf16 keeps 8 bits, each path rounds its own way


def check_fast_path(model: PreTrainedModel, batch: Batch, precision: torch.dtype) -> PathCheck:
    """Send a few real documents through both paths and compare their losses.

    The plain path runs every document alone, so a path on which documents touch each other does not pass either.
    """
    if unknown := set(getattr(model.config, "layer_types", None) or ()) - KNOWN_LAYERS:
        return PathCheck(False, f"layers of {', '.join(sorted(unknown))}")
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            plain = plain_loss(model, batch).item()
            fast = ragged_loss(model, batch).item()
    except (UnsupportedAttention, TypeError, RuntimeError) as error:
        # an architecture that cannot take flat documents fails in its own way: by a keyword, a shape or a mask
        return PathCheck(False, str(error).splitlines()[0])
    finally:
        model.train(training)
    difference = abs(fast - plain) / max(abs(plain), 1e-9)
    if not difference <= TOLERANCE[precision]:
        return PathCheck(False, f"losses differ by {difference:.1e}, allowed are {TOLERANCE[precision]:.0e}", difference)
    return PathCheck(True, "equal to one document at a time", difference)

"""One forward pass over a ragged batch of a decoder: laid end to end where that is proven equal, else document by document.

Three paths give the same loss: `flat`, layers that are written out for decoders like Llama; `ragged`, any decoder of
transformers' that takes documents laid end to end; `plain`, transformers by itself, a document at a time.
"""

from enum import Enum

import torch
from torch import Tensor
from transformers import PreTrainedModel

from llmft.data.batch import Batch
from llmft.models.attention import UnsupportedAttention, ragged
from llmft.models.computing import computing
from llmft.models.flat.decoder import flat_states, layers_of
from llmft.models.frozen import Frozen
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


class Path(Enum):
    """How a batch goes through a model, the fastest first; encoders and encoder-decoders know `flat`, and `plain` for all else."""

    flat = "flat"
    ragged = "ragged"
    plain = "plain"


def batch_loss(
    model: PreTrainedModel, batch: Batch, precision: torch.dtype, path: Path, frozen: Frozen | None = None
) -> Tensor:
    """Summed loss of the batch, by one of the paths. `frozen`: layers that are not trained, for the path that makes use of it."""
    if path is Path.flat:
        return flat_loss(model, batch, precision, frozen)
    with computing(model, precision):
        return ragged_loss(model, batch) if path is Path.ragged else plain_loss(model, batch)


def flat_loss(model: PreTrainedModel, batch: Batch, precision: torch.dtype, frozen: Frozen | None = None) -> Tensor:
    """Summed loss of the batch by layers that are written out. Raises UnsupportedAttention for other architectures."""
    layers = layers_of(model)
    if layers is None:
        raise UnsupportedAttention("layers that are not written out")
    hidden_MD = flat_states(model, layers, batch, precision, frozen)
    return token_loss(hidden_MD, model.get_output_embeddings(), batch.targets_M)

"""Cross-entropy over the rows that carry loss."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# M rows that carry loss, D model width, V vocabulary

CHUNK_ROWS = 1024  # 1024 rows of a 150,000-word vocabulary in float32: 600 MB for logits and as much for their gradient


def summed_cross_entropy(logits_MV: Tensor, targets_M: Tensor) -> Tensor:
    """Negative log-likelihood of the targets, summed over the rows, in float32."""
    return F.cross_entropy(logits_MV.float(), targets_M, reduction="sum")


def token_loss(hidden_MD: Tensor, head: Callable[[Tensor], Tensor], targets_M: Tensor) -> Tensor:
    """Cross-entropy summed over the M loss-bearing rows; `head` maps hidden states to logits.

    Summed, not averaged: the caller divides by the tokens of the whole optimizer step, so micro-batches weigh right.
    In chunks whose logits are computed again in the backward pass, so that no M x V matrix is kept.
    """

    def chunk_loss(hidden: Tensor, targets: Tensor) -> Tensor:
        return summed_cross_entropy(head(hidden), targets)

    if len(targets_M) <= CHUNK_ROWS:
        return chunk_loss(hidden_MD, targets_M)
    pairs = zip(hidden_MD.split(CHUNK_ROWS), targets_M.split(CHUNK_ROWS), strict=True)
    # preserve_rng_state=False: nothing random happens between the hidden states and the loss
    return torch.stack([checkpoint(chunk_loss, *pair, use_reentrant=False, preserve_rng_state=False) for pair in pairs]).sum()

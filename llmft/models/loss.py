"""Cross-entropy over the rows that carry loss."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.utils.checkpoint import checkpoint

from llmft.models import filling
from llmft.models.rounding import narrow

# M rows that carry loss, D model width, V vocabulary

CHUNK_ROWS = (
    1024  # 1024 rows of a 150,000-word vocabulary in float32: 600 MB for logits, which their gradient takes the place of
)
FILLED_ROWS = 16
"""In 16 bits on a processor numbers of rows are multiples of it (see `llmft.models.filling`)."""


def summed_cross_entropy(logits_MV: Tensor, targets_M: Tensor) -> Tensor:
    """Negative log-likelihood of the targets, summed over the rows, in float32."""
    return F.cross_entropy(logits_MV.float(), targets_M, reduction="sum")


class LinearCrossEntropy(Function):
    """Cross-entropy of softmax(hW^T), summed over the rows, with its gradients computed in the forward pass.

    The loss is the last thing computed, so what comes back is a number that gradients are multiplied by; they need not wait for
    it. softmax(z) - onehot(target) is made in the place of the logits z, one chunk of rows after the other.
    """

    @staticmethod
    def forward(ctx: Any, hidden_MD: Tensor, weight_VD: Tensor, targets_M: Tensor, dtype: torch.dtype) -> Tensor:
        wanted_hidden, wanted_weight = ctx.needs_input_grad[:2]
        total = torch.zeros((), device=hidden_MD.device)
        dhidden_MD = torch.empty_like(hidden_MD) if wanted_hidden else None
        dweight_VD = None
        weight = narrow(weight_VD, dtype)
        for start in range(0, len(targets_M), CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            hidden, targets = hidden_MD[rows].to(dtype), targets_M[rows, None]
            if filling.pays(hidden):
                hidden = filling.to_rows(hidden, filling.rounded_up(len(hidden), FILLED_ROWS))
            filled = (hidden @ weight.t()).float()
            scores = filled[: len(targets)]
            scores -= scores.amax(dim=-1, keepdim=True)
            total -= scores.gather(1, targets).sum()
            sums = scores.exp_().sum(dim=-1, keepdim=True)
            total += sums.log().sum()
            if not (wanted_hidden or wanted_weight):
                continue
            scores /= sums
            scores.scatter_add_(1, targets, scores.new_full((), -1).expand(targets.shape))
            gradient = filled.to(dtype)  # rows of zeros have scores of 0, and so they stay
            if dhidden_MD is not None:
                dhidden_MD[rows] = (gradient @ weight)[: len(targets)]
            if wanted_weight:
                part_VD = gradient.t() @ hidden
                dweight_VD = part_VD.to(weight_VD.dtype) if dweight_VD is None else dweight_VD.add_(part_VD)
        ctx.found = [dhidden_MD, dweight_VD]  # not saved for autograd, which would copy them instead of handing them on
        return total

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        found, ctx.found = ctx.found, None
        return *(None if each is None else each.mul_(factor.to(each.dtype)) for each in found), None, None


def token_loss(hidden_MD: Tensor, head: Callable[[Tensor], Tensor], targets_M: Tensor) -> Tensor:
    """Cross-entropy summed over the M loss-bearing rows; `head` maps hidden states to logits.

    Summed, not averaged: the caller divides by the tokens of the whole optimizer step, so micro-batches weigh right.
    In chunks, so that no M x V matrix is kept; where the head is no plain matrix, logits are computed again in the backward pass.
    """

    def chunk_loss(hidden: Tensor, targets: Tensor) -> Tensor:
        return summed_cross_entropy(head(hidden), targets)

    if type(head) is nn.Linear and head.bias is None:
        device = hidden_MD.device.type
        mixed = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if mixed else hidden_MD.dtype
        with torch.autocast(device, enabled=False):
            return LinearCrossEntropy.apply(hidden_MD, head.weight, targets_M, dtype)
    if len(targets_M) <= CHUNK_ROWS:
        return chunk_loss(hidden_MD, targets_M)
    pairs = zip(hidden_MD.split(CHUNK_ROWS), targets_M.split(CHUNK_ROWS), strict=True)
    # preserve_rng_state=False: nothing random happens between the hidden states and the loss
    return torch.stack([checkpoint(chunk_loss, *pair, use_reentrant=False, preserve_rng_state=False) for pair in pairs]).sum()

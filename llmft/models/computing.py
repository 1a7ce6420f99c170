"""A number format to compute in, for passes through transformers' own modules."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from transformers import PreTrainedModel

from llmft.hardware.precision import autocast
from llmft.models.attention import checkpointed
from llmft.models.fused_linear import coarse_linears


@contextmanager
def computing(model: PreTrainedModel, precision: torch.dtype) -> Iterator[None]:
    """Inside the block matrix products run in `precision`, with coarse weights rounded by thresholds (`llmft.models.rounding`).

    Where layers are computed again in the backward pass, behind the block, they are rounded to the nearest number.
    """
    again = torch.is_grad_enabled() and checkpointed(model)
    with autocast(model.device, precision), nullcontext() if again else coarse_linears(model, precision):
        yield

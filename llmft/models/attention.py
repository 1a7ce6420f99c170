"""Attention over a ragged batch: documents laid end to end, each attending to itself alone.

Registered with transformers under the name `RAGGED`. transformers builds no mask for it; where documents begin and end
travels as the keyword argument `document_lengths` through the model's forward pass.
"""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from llmft.models.fused_linear import fused_adapters

# N flat tokens of the batch, H query heads, K key/value heads, D head width

RAGGED = "llmft_ragged"

# Arguments with which an architecture asks for a softmax that is not softmax(QK^T/sqrt(d))V. Ignoring one would be a
# silent error, so they are refused, and the model takes the plain path.
UNKNOWN_SOFTMAX = ("softcap", "s_aux", "position_bias", "head_mask")


class UnsupportedAttention(Exception):
    """The architecture asks for something `ragged_attention` does not compute."""


def ragged_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    document_lengths: tuple[int, ...] | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    **options: object,
) -> tuple[Tensor, None]:
    """softmax(QK^T/sqrt(d))V per document (Vaswani et al. 2017, arXiv:1706.03762).

    query (1, H, N, D), key and value (1, K, N, D); returns (1, N, H, D). With a `sliding_window` W a token sees the W
    tokens up to and with itself.

    Raises UnsupportedAttention where the lengths did not reach this layer or the architecture wants another softmax.
    """
    if document_lengths is None or attention_mask is not None or query.shape[2] != sum(document_lengths):
        raise UnsupportedAttention("document lengths did not reach the attention layer")
    if wanted := [name for name in UNKNOWN_SOFTMAX if options.get(name) is not None]:
        raise UnsupportedAttention(f"attention with {', '.join(wanted)}")
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    parts, start = [], 0
    for length in document_lengths:
        rows = slice(start, start + length)
        band = None
        if sliding_window is not None and length > sliding_window:
            age = torch.arange(length, device=query.device)[:, None] - torch.arange(length, device=query.device)
            band = (age < sliding_window) & (age >= 0 if causal else age > -sliding_window)
        parts.append(
            F.scaled_dot_product_attention(
                query[:, :, rows],
                key[:, :, rows],
                value[:, :, rows],
                attn_mask=band,
                dropout_p=dropout,
                is_causal=causal and band is None,
                scale=scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            )
        )
        start += length
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous(), None


def no_mask(*positional: object, **options: object) -> None:
    """Tell transformers to build no mask: `ragged_attention` knows the documents' bounds."""


AttentionInterface.register(RAGGED, ragged_attention)
AttentionMaskInterface.register(RAGGED, no_mask)


@contextmanager
def attention(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Run `model` with the attention of that name inside the block, and with the one it had before after it."""
    before = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def ragged(model: PreTrainedModel) -> Iterator[None]:
    """Run `model` with ragged attention, and with adapters as one Function each, inside the block.

    Not where layers are computed again: finding a large model's adapters anew for each of them takes longer than is saved.
    """
    with attention(model, RAGGED), nullcontext() if checkpointed(model) else fused_adapters(model):
        yield


def checkpoint_layers(model: PreTrainedModel) -> None:
    """Keep only each layer's input in the forward pass; compute the layer again in the backward pass.

    The backward pass runs after the block of `ragged`, so the attention of the forward pass is put back for it.
    """

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), attention(model, model.config._attn_implementation)

    with warnings.catch_warnings():  # transformers is about to rename it
        warnings.simplefilter("ignore", FutureWarning)
        model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": contexts})


def checkpointed(model: PreTrainedModel) -> bool:
    """Tell whether layers are computed again in the backward pass."""
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())

"""Attention of a few new tokens over keys and values that are kept.

Registered with transformers under the name `KEPT_KEYS`. No mask function is registered beside it, so transformers builds
no mask: who sees what is known to the texts being written (`decoder.Prompts`, `pair.Pairs`), which travel through the
model's forward pass as the keyword argument `texts`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from llmft.models.attention import UNKNOWN_SOFTMAX, UnsupportedAttention

# R texts being written, S sources of them, B = R / S beams, T kept positions, L new tokens of one document
# H query heads, K key/value heads, G = H / K, D head width

KEPT_KEYS = "llmft_kept_keys"
BLOCK = 96  # queries at a time: of the scores above the diagonal, few are computed in vain

Masks = dict[tuple[int, int, int | None], Tensor]
"""What `hidden` has returned, by numbers of queries and keys and by window: the same for all layers of a pass."""


def kept_keys_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    texts: Any = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    position_bias: Tensor | None = None,
    **options: object,
) -> tuple[Tensor, None]:
    """softmax(QK^T/sqrt(d))V (Vaswani et al. 2017, arXiv:1706.03762); `texts` knows which keys a query sees.

    Raises UnsupportedAttention where they did not reach this layer or the architecture wants another softmax.
    """
    if texts is None:
        raise UnsupportedAttention("the texts being written did not reach the attention layer")
    if wanted := [name for name in UNKNOWN_SOFTMAX if name != "position_bias" and options.get(name) is not None]:
        raise UnsupportedAttention(f"attention with {', '.join(wanted)}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return texts.attend(module, query, key, value, attention_mask, scale, sliding_window, position_bias), None


AttentionInterface.register(KEPT_KEYS, kept_keys_attention)


def causal(query_HLD: Tensor, key_KTD: Tensor, value_KTD: Tensor, scale: float, window: int | None, masks: Masks) -> Tensor:
    """Attention of a document's last L tokens over its T, as (L, H, D). With a `window` a token sees so many, itself the last.

    Blocks of queries meet no later keys, and the query heads of a group read their common keys where they are.
    """
    (_, length, width), (groups, total, _) = query_HLD.shape, key_KTD.shape
    past, found = total - length, []
    for start in range(0, length, BLOCK):
        stop = min(start + BLOCK, length)
        first = 0 if window is None else max(0, past + start + 1 - window)
        queries = query_HLD[:, start:stop].unflatten(0, (groups, -1))
        shape = (groups, queries.shape[1], past + stop - first, width)
        keys, values = (each[:, None, first : past + stop].expand(shape) for each in (key_KTD, value_KTD))
        size = (stop - start, past + stop - first, window)
        if size not in masks:
            masks[size] = hidden(*size, query_HLD.dtype, query_HLD.device)
        part = F.scaled_dot_product_attention(queries, keys, values, attn_mask=masks[size], scale=scale)
        found.append(part.flatten(0, 1).transpose(0, 1))
    return found[0] if len(found) == 1 else torch.cat(found)


def hidden(length: int, total: int, window: int | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return what is added to the scores (L, T) of the last L of T tokens: minus infinity for later and too early keys."""
    age = torch.arange(total - length, total, device=device)[:, None] - torch.arange(total, device=device)
    unseen = age < 0 if window is None else (age < 0) | (age >= window)
    return torch.zeros(age.shape, dtype=dtype, device=device).masked_fill_(unseen, float("-inf"))


def next_tokens(query_RHD: Tensor, key_RKTD: Tensor, value_RKTD: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Attention of one new token of each text over the text's keys, as (R, H, D); `mask` is added to the scores."""
    texts, heads, width = query_RHD.shape
    rows = query_RHD.reshape(texts, key_RKTD.shape[1], -1, width)
    return F.scaled_dot_product_attention(rows, key_RKTD, value_RKTD, attn_mask=mask, scale=scale).reshape(texts, heads, width)


def beams_over_source(query_RHD: Tensor, key_SKTD: Tensor, value_SKTD: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Attention of one new token of each text over the keys of its source, which B texts share, as (R, H, D)."""
    (texts, heads, width), (sources, groups) = query_RHD.shape, key_SKTD.shape[:2]
    rows = query_RHD.reshape(sources, -1, groups, heads // groups, width).transpose(1, 2).reshape(sources, groups, -1, width)
    found = F.scaled_dot_product_attention(rows, key_SKTD, value_SKTD, attn_mask=mask, scale=scale)
    return found.reshape(sources, groups, -1, heads // groups, width).transpose(1, 2).reshape(texts, heads, width)


def beams_over_both(
    query_RHD: Tensor,
    source: tuple[Tensor, Tensor, Tensor],
    written: tuple[Tensor, Tensor, Tensor | None],
    scale: float,
) -> Tensor:
    """Attention of one new token of each text over its prompt, which B texts share, and over what it has written itself.

    source: keys and values (S, K, T, D) and what is added to the scores (S, 1, 1, T); written: the same per text.
    """
    (keys, values, mask), (own_keys, own_values, own_mask) = source, written
    (texts, heads, width), (sources, groups, total) = query_RHD.shape, keys.shape[:3]
    beams, group = texts // sources, heads // groups
    apart = query_RHD.reshape(texts, groups, group, width) * scale
    together = apart.reshape(sources, beams, groups, group, width).transpose(1, 2).reshape(sources, groups, -1, width)
    scores = torch.matmul(together, keys.transpose(2, 3)) + mask
    own = torch.matmul(apart, own_keys.transpose(2, 3))
    own = own if own_mask is None else own + own_mask
    own = own.reshape(sources, beams, groups, group, -1).transpose(1, 2).reshape(sources, groups, beams * group, -1)
    shares = torch.cat([scores, own], dim=-1).softmax(-1).to(values.dtype)
    mixed = torch.matmul(shares[..., :total], values)
    mixed = mixed.reshape(sources, groups, beams, group, width).transpose(1, 2).reshape(texts, groups, group, width)
    own = shares[..., total:].reshape(sources, groups, beams, group, -1).transpose(1, 2).reshape(texts, groups, group, -1)
    return (mixed + torch.matmul(own, own_values)).reshape(texts, heads, width)

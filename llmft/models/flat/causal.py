"""Causal attention over documents laid end to end, forward and backward: softmax(QK^T/sqrt(d))V for each of them alone.

By torch's own kernel for processors, called document by document, forward and backward apart: what autograd would add between
(padding slices with zeros, adding up what comes back for each document) takes as long as a short document's attention.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# N flat tokens, Q of them that ask, H query heads, K key/value heads, E head width; L tokens of a document

forward_op = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
backward_op = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class Document(NamedTuple):
    """Where a document's queries and keys are among the flat ones; `mask` (queries, keys) where that is not each with those before."""

    queries: slice
    keys: slice
    mask: Tensor | None


class Held(NamedTuple):
    """What the backward pass reads: inputs, what was read, and each document's logarithms of sums."""

    q_QHE: Tensor
    k_NKE: Tensor
    v_NKE: Tensor
    out_QHE: Tensor
    log_sums: list[Tensor]


def documents_of(lengths: Sequence[int], window: int | None, like: Tensor) -> list[Document]:
    """Return the documents' places where every token asks. With a `window` W a token sees the W tokens up to and with itself."""
    found, start = [], 0
    for length in lengths:
        rows = slice(start, start + length)
        places = torch.arange(length, device=like.device)
        found.append(Document(rows, rows, None if window is None or length <= window else mask_of(places, window, like)))
        start += length
    return found


def documents_of_rows(lengths: Sequence[int], rows: Sequence[int], window: int | None, like: Tensor) -> list[Document]:
    """The same where only some of the flat tokens ask: `rows`, in order. A document of which none asks is left out."""
    found, start, first = [], 0, 0
    for length in lengths:
        last = first
        while last < len(rows) and rows[last] < start + length:
            last += 1
        if last > first:
            places = torch.tensor(rows[first:last], device=like.device) - start
            mask = mask_of(places, window, like)
            found.append(Document(slice(first, last), slice(start, start + mask.shape[1]), mask))
        start, first = start + length, last
    return found


def mask_of(places: Tensor, window: int | None, like: Tensor) -> Tensor:
    """Return what is added to the scores of the queries at these places of a document: minus infinity for what they do not see."""
    age = places[:, None] - torch.arange(int(places[-1]) + 1, device=like.device)
    hidden = age < 0 if window is None else (age < 0) | (age >= window)
    return torch.zeros(age.shape, device=like.device, dtype=like.dtype).masked_fill_(hidden, float("-inf"))


def attend(q_QHE: Tensor, k_NKE: Tensor, v_NKE: Tensor, documents: Sequence[Document], scale: float) -> tuple[Tensor, Held]:
    """Return what each query reads (Q, H, E), and what the backward pass needs."""
    k_NHE, v_NHE = (for_query_heads(each, q_QHE.shape[1]) for each in (k_NKE, v_NKE))
    parts, log_sums = [], []
    for queries, keys, mask in documents:
        asked = batch_of(q_QHE[queries]), batch_of(k_NHE[keys]), batch_of(v_NHE[keys])
        part, log_sum = forward_op(*asked, 0.0, mask is None, attn_mask=mask, scale=scale)
        parts.append(part)
        log_sums.append(log_sum)
    out_QHE = flat_of(parts)
    return out_QHE, Held(q_QHE, k_NKE, v_NKE, out_QHE, log_sums)


def attend_backward(
    gradient_QHE: Tensor, held: Held, documents: Sequence[Document], scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v."""
    q_QHE, k_NKE, v_NKE, out_QHE, log_sums = held
    k_NHE, v_NHE = (for_query_heads(each, q_QHE.shape[1]) for each in (k_NKE, v_NKE))
    found = []
    for (queries, keys, mask), log_sum in zip(documents, log_sums, strict=True):
        asked = batch_of(gradient_QHE[queries]), batch_of(q_QHE[queries]), batch_of(k_NHE[keys]), batch_of(v_NHE[keys])
        found.append(backward_op(*asked, batch_of(out_QHE[queries]), log_sum, 0.0, mask is None, attn_mask=mask, scale=scale))
    dq_QHE = flat_of([dq for dq, _, _ in found])
    kept = [keys for _, keys, _ in documents]
    dk_NKE, dv_NKE = (of_key_heads(scattered([each[place] for each in found], kept, k_NHE), k_NKE.shape[1]) for place in (1, 2))
    return dq_QHE, dk_NKE, dv_NKE


def for_query_heads(x_NKE: Tensor, num_query_heads: int) -> Tensor:
    """Repeat each key head for the query heads that share it."""
    groups = num_query_heads // x_NKE.shape[1]
    return x_NKE.repeat_interleave(groups, dim=1) if groups > 1 else x_NKE


def batch_of(x_LHE: Tensor) -> Tensor:
    """Return (1, H, L, E), as the kernels want it; a view."""
    return x_LHE.transpose(0, 1)[None]


def flat_of(parts: Sequence[Tensor]) -> Tensor:
    """Lay documents (1, H, L, E) end to end as (N, H, E)."""
    return torch.cat([part[0].transpose(0, 1) for part in parts])


def scattered(parts: Sequence[Tensor], places: Sequence[slice], like_NHE: Tensor) -> Tensor:
    """Lay parts (1, H, L, E) at their places of (N, H, E), zeros between them."""
    if sum(place.stop - place.start for place in places) == len(like_NHE):
        return flat_of(parts)
    found = torch.zeros_like(like_NHE)
    for part, place in zip(parts, places, strict=True):
        found[place] = part[0].transpose(0, 1)
    return found


def of_key_heads(gradient_NHE: Tensor, num_key_heads: int) -> Tensor:
    """Add up what comes back from the query heads that share a key head."""
    if gradient_NHE.shape[1] == num_key_heads:
        return gradient_NHE
    return gradient_NHE.unflatten(1, (num_key_heads, -1)).sum(2)

"""Causal attention over documents laid end to end, forward and backward: softmax(QK^T/sqrt(d))V for each of them alone.

By torch's own kernel for processors, called document by document, forward and backward apart: what autograd would add between
(padding slices with zeros, adding up what comes back for each document) takes as long as a short document's attention.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from llmft.hardware.arena import Arena, empty, kept

# N flat tokens, Q of them that ask, H query heads, K key/value heads, E head width; L tokens of a document

forward_op = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
backward_op = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class Document(NamedTuple):
    """Where a document's queries and keys are among the flat ones; `mask` (queries, keys) where that is not each with those before.

    The keys of a piece of a document are in several places: those of the pieces before it, and its own. Without a mask, as many
    queries as there are keys go through the kernel, and those before its own are thrown away.
    """

    queries: slice
    keys: tuple[slice, ...]
    mask: Tensor | None

    @property
    def asked(self) -> tuple[slice, ...]:
        """Where the queries are that the kernel gets."""
        return self.keys if self.mask is None else (self.queries,)


class Held(NamedTuple):
    """What the backward pass reads: inputs, what was read, and each document's logarithms of sums."""

    q_QHE: Tensor
    k_NKE: Tensor
    v_NKE: Tensor
    out_QHE: Tensor
    log_sums: list[Tensor]


def chains_of(lengths: Sequence[int], parents: Sequence[int] | None) -> list[tuple[slice, ...]]:
    """Return where the tokens of each piece are, those of the pieces before it first."""
    found: list[tuple[slice, ...]] = []
    start = 0
    for place, length in enumerate(lengths):
        before = () if parents is None or parents[place] < 0 else found[parents[place]]
        found.append((*before, slice(start, start + length)))
        start += length
    return found


def documents_of(
    lengths: Sequence[int], window: int | None, like: Tensor, parents: Sequence[int] | None = None
) -> list[Document]:
    """Return the documents' places where every token asks. With a `window` W a token sees the W tokens up to and with itself."""
    found = []
    for keys in chains_of(lengths, parents):
        total, own = tokens_of(keys), keys[-1].stop - keys[-1].start
        # half of the products that a kernel without a mask makes are never made
        masked = own * total < total * total / 2 or (window is not None and total > window)
        places = torch.arange(total - own, total, device=like.device)
        found.append(Document(keys[-1], keys, mask_of(places, window, like) if masked else None))
    return found


def documents_of_rows(
    lengths: Sequence[int], rows: Sequence[int], window: int | None, like: Tensor, parents: Sequence[int] | None = None
) -> list[Document]:
    """The same where only some of the flat tokens ask: `rows`, in order. A piece of which none asks is left out."""
    found, first = [], 0
    for keys in chains_of(lengths, parents):
        last = first
        while last < len(rows) and rows[last] < keys[-1].stop:
            last += 1
        if last > first:
            own = keys[-1]
            places = torch.tensor(rows[first:last], device=like.device) - own.start + tokens_of(keys[:-1])
            mask = mask_of(places, window, like)
            seen = own.start + mask.shape[1] - tokens_of(keys[:-1])
            found.append(Document(slice(first, last), (*keys[:-1], slice(own.start, seen)), mask))
        first = last
    return found


def tokens_of(places: Sequence[slice]) -> int:
    """Return how many tokens there are at these places."""
    return sum(place.stop - place.start for place in places)


def mask_of(places: Tensor, window: int | None, like: Tensor) -> Tensor:
    """Return what is added to the scores of the queries at these places of a document: minus infinity for what they do not see."""
    age = places[:, None] - torch.arange(int(places[-1]) + 1, device=like.device)
    hidden = age < 0 if window is None else (age < 0) | (age >= window)
    return torch.zeros(age.shape, device=like.device, dtype=like.dtype).masked_fill_(hidden, float("-inf"))


def attend(
    q_QHE: Tensor, k_NKE: Tensor, v_NKE: Tensor, documents: Sequence[Document], scale: float, arena: Arena | None = None
) -> tuple[Tensor, Held]:
    """Return what each query reads (Q, H, E), in an arena if there is one, and what the backward pass needs."""
    k_NHE, v_NHE = (for_query_heads(each, q_QHE.shape[1]) for each in (k_NKE, v_NKE))
    parts, log_sums = [], []
    for document in documents:
        given = batch_of(q_QHE, document.asked), batch_of(k_NHE, document.keys), batch_of(v_NHE, document.keys)
        part, log_sum = forward_op(*given, 0.0, document.mask is None, attn_mask=document.mask, scale=scale)
        parts.append(own_of(part, document))
        log_sums.append(kept(arena, log_sum))
    out_QHE = flat_of(parts, empty(arena, q_QHE, *q_QHE.shape))
    return out_QHE, Held(q_QHE, k_NKE, v_NKE, out_QHE, log_sums)


def attend_backward(
    gradient_QHE: Tensor, held: Held, documents: Sequence[Document], scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v."""
    q_QHE, k_NKE, v_NKE, out_QHE, log_sums = held
    k_NHE, v_NHE = (for_query_heads(each, q_QHE.shape[1]) for each in (k_NKE, v_NKE))
    found = []
    for document, log_sum in zip(documents, log_sums, strict=True):
        given = batch_of(q_QHE, document.asked), batch_of(k_NHE, document.keys), batch_of(v_NHE, document.keys)
        gradient, out = (behind_nothing(each[document.queries], document) for each in (gradient_QHE, out_QHE))
        dq, dk, dv = backward_op(
            gradient, *given, out, log_sum, 0.0, document.mask is None, attn_mask=document.mask, scale=scale
        )
        found.append((own_of(dq, document), dk, dv))
    dq_QHE = flat_of([dq for dq, _, _ in found])
    kept = [document.keys for document in documents]
    dk_NKE, dv_NKE = (of_key_heads(scattered([each[place] for each in found], kept, k_NHE), k_NKE.shape[1]) for place in (1, 2))
    return dq_QHE, dk_NKE, dv_NKE


def own_of(part_1HLE: Tensor, document: Document) -> Tensor:
    """Return what belongs to a document's own queries, of all that went through the kernel."""
    return part_1HLE[:, :, part_1HLE.shape[2] - (document.queries.stop - document.queries.start) :]


def behind_nothing(own_LHE: Tensor, document: Document) -> Tensor:
    """Return (1, H, L, E) with zeros for the queries that are not a document's own: nothing comes back from them."""
    missing = tokens_of(document.asked) - len(own_LHE)
    if missing:
        own_LHE = torch.cat([own_LHE.new_zeros(missing, *own_LHE.shape[1:]), own_LHE])
    return own_LHE.transpose(0, 1)[None]


def for_query_heads(x_NKE: Tensor, num_query_heads: int) -> Tensor:
    """Repeat each key head for the query heads that share it."""
    groups = num_query_heads // x_NKE.shape[1]
    return x_NKE.repeat_interleave(groups, dim=1) if groups > 1 else x_NKE


def batch_of(x_NHE: Tensor, places: Sequence[slice]) -> Tensor:
    """Return what is at these places as (1, H, L, E), as the kernels want it; a view where it is one place."""
    parts = [x_NHE[place] for place in places]
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).transpose(0, 1)[None]


def flat_of(parts: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
    """Lay documents (1, H, L, E) end to end as (N, H, E); into `out`, if given."""
    return torch.cat([part[0].transpose(0, 1) for part in parts], out=out)


def scattered(parts: Sequence[Tensor], places: Sequence[Sequence[slice]], like_NHE: Tensor) -> Tensor:
    """Add up parts (1, H, L, E), each at its places, in (N, H, E)."""
    if all(len(each) == 1 for each in places) and sum(map(tokens_of, places)) == len(like_NHE):
        return flat_of(parts)
    found = torch.zeros_like(like_NHE)
    for part, spans in zip(parts, places, strict=True):
        start = 0
        for span in spans:
            stop = start + span.stop - span.start
            found[span] += part[0, :, start:stop].transpose(0, 1)
            start = stop
    return found


def of_key_heads(gradient_NHE: Tensor, num_key_heads: int) -> Tensor:
    """Add up what comes back from the query heads that share a key head."""
    if gradient_NHE.shape[1] == num_key_heads:
        return gradient_NHE
    return gradient_NHE.unflatten(1, (num_key_heads, -1)).sum(2)

"""Attention of documents laid end to end, forward and backward: softmax(QK^T + bias)V for each of them alone, with dropout.

As products of all heads of documents of nearly the same length, few enough at once that their scores stay in the processor's caches.
torch's own kernel has no dropout on a processor, and without it would make tensors of all documents' scores, several times over.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import NamedTuple

import torch
from torch import Tensor

from llmft.models.dropout import Mask, draw
from llmft.models.filling import rounded_up
from llmft.models.layout import Layout, layout_of

# Q and K flat tokens that ask and that are asked, D width of all heads, H heads, E head width
# B documents of a group, L queries and S keys of each, X = BH, P rows of heads: of each group (X, L), filled up

STEP = 8
"""Documents are filled up to multiples of it: more of them are alike then, and oneDNN makes a program for each size of a product."""
MOST_SCORES = 1 << 17
"""Scores that a head has at once, at most; those of one document may be more."""
GROUP_SCORES = 6000
"""Scores of a head that take as long as what each group costs beside its products. In a T5-small's training 4,000 to 8,000 were fastest."""


class Group(NamedTuple):
    """Documents computed at once, filled up to `queries` (L) and `keys` (S) each, with so many heads in all (X).

    `hidden` (B, 1, 1, at most S) is added to the scores of the last keys, minus infinity for filling; None: none is.
    """

    queries: int
    keys: int
    heads: int
    hidden: Tensor | None


class Groups(NamedTuple):
    """All documents of a batch, put in groups, for layers with so many heads."""

    heads: int
    queries: Layout
    keys: Layout
    each: tuple[Group, ...]

    def of_queries(self, x_PE: Tensor) -> list[Tensor]:
        """Return what is at the queries of each group (X, L, E), views."""
        parts = x_PE.split([group.heads * group.queries for group in self.each])
        return [part.view(group.heads, group.queries, -1) for part, group in zip(parts, self.each, strict=True)]

    def of_keys(self, x_PE: Tensor) -> list[Tensor]:
        """Return what is at the keys of each group (X, S, E), views."""
        parts = x_PE.split([group.heads * group.keys for group in self.each])
        return [part.view(group.heads, group.keys, -1) for part, group in zip(parts, self.each, strict=True)]


def groups_of(queries: Sequence[int], keys: Sequence[int], heads: int, dtype: torch.dtype) -> Groups:
    """Put documents with so many queries and keys each in groups; some, not all, may have no queries, and none no keys.

    dtype: what is computed in.
    """
    assert len(queries) == len(keys), f"{len(queries)} documents ask, {len(keys)} are asked"
    assert min(keys) > 0, "a document of no tokens is asked"
    sizes = list(zip(filled_up(queries), filled_up(keys), strict=True))
    groups: list[Group] = []
    members: list[list[int]] = []
    for together in put_together(sizes):
        length, width = most_of(sizes, together)
        for part in parts_of(together, max(1, MOST_SCORES // (length * width))):
            length, width = most_of(sizes, part)  # of a part it may be less
            hidden = hidden_of([keys[member] for member in part], width, dtype)
            groups.append(Group(length, width, heads * len(part), hidden))
            members.append(part)
    of_queries = layout_of(rows_of(queries, [group.queries for group in groups], members, heads))
    of_keys = layout_of(rows_of(keys, [group.keys for group in groups], members, heads))
    return Groups(heads, of_queries, of_keys, tuple(groups))


def put_together(sizes: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Return which documents are computed together, by their numbers of queries and keys: those of nearly as many.

    The longest come first; others are filled up to them while that adds fewer scores than a group of their own would cost.
    """
    found: list[list[int]] = []
    for (length, width), alike in groupby(sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True), sizes.__getitem__):
        documents = list(alike)
        if found:
            apart = scores_of(sizes, found[-1]) + length * width * len(documents)
            if scores_of(sizes, found[-1] + documents) - apart < GROUP_SCORES:
                found[-1] += documents
                continue
        found.append(documents)
    return found


def scores_of(sizes: Sequence[tuple[int, int]], members: Sequence[int]) -> int:
    """Return the scores that a head has for some documents, filled up to the most queries and keys among them."""
    length, width = most_of(sizes, members)
    return length * width * len(members)


def most_of(sizes: Sequence[tuple[int, int]], members: Sequence[int]) -> tuple[int, int]:
    """Return the most queries and the most keys that any of some documents has."""
    return max(sizes[member][0] for member in members), max(sizes[member][1] for member in members)


def filled_up(counts: Sequence[int]) -> list[int]:
    """Return the lengths that documents are filled up to: multiples of STEP, at least one token, none longer than the longest."""
    longest = max(counts)
    return [min(rounded_up(max(1, count), STEP), longest) for count in counts]


def parts_of(members: Sequence[int], most: int) -> Iterator[list[int]]:
    """Cut a list into parts of `most` members."""
    for start in range(0, len(members), most):
        yield list(members[start : start + most])


def hidden_of(counts: Sequence[int], width: int, dtype: torch.dtype) -> Tensor | None:
    """Return what is added to the scores of the last keys."""
    least = min(counts)
    if least == width:
        return None
    filling = torch.arange(least, width) >= torch.tensor(counts)[:, None]
    return torch.zeros(filling.shape, dtype=dtype).masked_fill_(filling, float("-inf"))[:, None, None]


def rows_of(
    counts: Sequence[int], sizes: Sequence[int], members: Sequence[Sequence[int]], heads: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield which head of which row the rows of each group are (B, H, L), and which of them only fill up (B, 1, L).

    counts: documents' rows; sizes: what they are filled up to in the groups of `members`.
    """
    firsts = torch.tensor(list(accumulate(counts, initial=0)))
    for size, part in zip(sizes, members, strict=True):
        place_L, member_B = torch.arange(size), torch.tensor(part)
        fills_BL = place_L >= (firsts[member_B + 1] - firsts[member_B])[:, None]
        row_BL = (firsts[member_B, None] + place_L).masked_fill_(fills_BL, 0)
        yield row_BL[:, None] * heads + torch.arange(heads)[:, None], fills_BL[:, None]


class Held(NamedTuple):
    """What the backward pass reads, laid out: queries, keys, values, and of each group the weights and the mask of what is kept of them."""

    q_PE: Tensor
    k_PE: Tensor
    v_PE: Tensor
    each: list[Tensor]


@dataclass(frozen=True)
class Attending:
    """How the layers of a batch attend: its documents, what is added to scores, and the rate at which weights are dropped.

    `bias_HLS` is added from its corner on, in the format of scores; its first dimension may be 1.
    """

    groups: Groups
    bias_HLS: Tensor | None
    dropout: float

    @property
    def factor(self) -> float:
        """What makes up for the weights that are dropped."""
        return 1 / (1 - self.dropout)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Held]:
        """Return what each query reads (Q, D), and what the backward pass needs. Queries come scaled."""
        heads, queries, keys, groups = self.groups
        q_PE = queries.lay_out(q.view(len(q) * heads, -1))
        k_PE, v_PE = (keys.lay_out(each.view(len(each) * heads, -1)) for each in (k, v))
        out_PE = torch.empty_like(q_PE)
        parts = *map(self.groups.of_queries, (q_PE, out_PE)), *map(self.groups.of_keys, (k_PE, v_PE))
        kept: list[Tensor] = []
        for group, q_XLE, out_XLE, k_XSE, v_XSE in zip(groups, *parts, strict=True):
            weights, scores = self._weights(group, q_XLE, k_XSE)
            kept.append(weights)
            if self.dropout:
                mask = draw((weights.shape[0] * weights.shape[1], weights.shape[2]), self.dropout)
                kept.extend(mask)
                weights = torch.mul(weights, mask.ones(weights), out=scores)
            torch.bmm(weights, v_XSE, out=out_XLE)
        held = Held(q_PE, k_PE, v_PE, kept)
        return queries.flat(out_PE.mul_(self.factor) if self.dropout else out_PE).view(q.shape), held

    def _weights(self, group: Group, q_XLE: Tensor, k_XSE: Tensor) -> tuple[Tensor, Tensor]:
        """Return softmax(QK^T + bias) (X, L, S), and memory of its size."""
        scores = q_XLE.new_empty(group.heads, group.queries, group.keys)
        scores_BHLS = scores.unflatten(0, (-1, self.groups.heads))
        if self.bias_HLS is None:
            torch.bmm(q_XLE, k_XSE.transpose(1, 2), out=scores)
        else:
            scores_BHLS.copy_(self.bias_HLS[:, : group.queries, : group.keys])
            scores.baddbmm_(q_XLE, k_XSE.transpose(1, 2))
        if group.hidden is not None:
            scores_BHLS[..., -group.hidden.shape[-1] :] += group.hidden
        return torch.softmax(scores, -1), scores

    def backward(self, gradient: Tensor, held: Held, dbias_HLS: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of q, k and v; add that of the bias to `dbias_HLS`."""
        heads, queries, keys, groups = self.groups
        gradient_PE = queries.lay_out_gradient(gradient.view(len(gradient) * heads, -1))
        if self.dropout:
            gradient_PE *= self.factor
        dq_PE, dk_PE, dv_PE = (torch.empty_like(each) for each in held[:3])
        asking = map(self.groups.of_queries, (gradient_PE, held.q_PE, dq_PE))
        asked = map(self.groups.of_keys, (held.k_PE, held.v_PE, dk_PE, dv_PE))
        weights_of = iter(held.each)
        for group, given_XLE, q_XLE, dq_XLE, k_XSE, v_XSE, dk_XSE, dv_XSE in zip(groups, *asking, *asked, strict=True):
            weights = next(weights_of)
            dweights = torch.bmm(given_XLE, v_XSE.transpose(1, 2))
            left = weights
            if self.dropout:
                ones = Mask(next(weights_of), next(weights_of)).ones(weights)
                dweights *= ones
                left = ones.mul_(weights)
            torch.bmm(left.transpose(1, 2), given_XLE, out=dv_XSE)
            dscores = torch._softmax_backward_data(dweights, weights, -1, weights.dtype)
            if dbias_HLS is not None:
                corner = dbias_HLS[:, : group.queries, : group.keys]
                for document_HLS in dscores.split(heads):  # for 184 x 184 scores a third of the time of a sum in another format
                    corner += document_HLS
            torch.bmm(dscores, k_XSE, out=dq_XLE)
            torch.bmm(dscores.transpose(1, 2), q_XLE, out=dk_XSE)
        dq_QD = queries.flat(dq_PE).view(gradient.shape)
        dk_KD, dv_KD = (keys.flat(each).view(-1, gradient.shape[1]) for each in (dk_PE, dv_PE))
        return dq_QD, dk_KD, dv_KD

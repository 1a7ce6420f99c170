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

# Q and K flat tokens that ask and that are asked, D width of all heads, P rows of documents that are filled up
# B documents of a group, L queries and S keys of each, H heads, E head width, X = BH

STEP = 8
"""Documents are filled up to multiples of it: more of them are alike then, and oneDNN makes a program for each size of a product."""
MOST_SCORES = 1 << 17
"""Scores that a head has at once, at most; those of one document may be more."""


class Group(NamedTuple):
    """Documents computed at once, filled up to `queries` (L) and `keys` (S) each, their rows at `asking` and `asked`.

    `hidden` (B, 1, 1, at most S) tells which of the last keys are filling; None: none is.
    """

    queries: int
    keys: int
    asking: slice
    asked: slice
    hidden: Tensor | None

    def asking_heads(self, x_PD: Tensor, heads: int) -> Tensor:
        """Return the heads of its queries (X, L, E)."""
        return heads_first(x_PD[self.asking], self.queries, heads).flatten(0, 1)

    def asked_heads(self, x_PD: Tensor, heads: int) -> Tensor:
        """Return the heads of its keys (X, S, E)."""
        return heads_first(x_PD[self.asked], self.keys, heads).flatten(0, 1)


class Filled(NamedTuple):
    """Flat rows laid out so that documents of a group are equally long: `rows_P` of the flat ones, any for filling.

    filling: the places of that; places: where the flat rows went.
    """

    rows_P: Tensor
    filling: Tensor
    places: Tensor

    def lay_out(self, x: Tensor) -> Tensor:
        """Return flat rows in their new places (P, D)."""
        return x.index_select(0, self.rows_P)

    def lay_out_gradient(self, x: Tensor) -> Tensor:
        """The same with zeros for filling, from which nothing comes back."""
        return self.lay_out(x).index_fill_(0, self.filling, 0)

    def flat(self, x_PD: Tensor) -> Tensor:
        """Return rows to the places that they came from."""
        return x_PD.index_select(0, self.places)


class Groups(NamedTuple):
    """All documents of a batch, put in groups."""

    queries: Filled
    keys: Filled
    each: tuple[Group, ...]


def groups_of(queries: Sequence[int], keys: Sequence[int]) -> Groups:
    """Put documents with so many queries and keys each in groups; some, not all, may have no queries, and none no keys."""
    assert len(queries) == len(keys), f"{len(queries)} documents ask, {len(keys)} are asked"
    assert min(keys) > 0, "a document of no tokens is asked"
    sizes = list(zip(filled_up(queries), filled_up(keys), strict=True))
    groups: list[Group] = []
    members: list[int] = []
    asking, asked = 0, 0
    for (length, width), alike in groupby(sorted(range(len(sizes)), key=sizes.__getitem__), sizes.__getitem__):
        for part in parts_of(list(alike), max(1, MOST_SCORES // (length * width))):
            stops = asking + length * len(part), asked + width * len(part)
            hidden = hidden_of([keys[member] for member in part], width)
            groups.append(Group(length, width, slice(asking, stops[0]), slice(asked, stops[1]), hidden))
            asking, asked = stops
            members += part
    lengths, widths = zip(*sizes, strict=True)
    return Groups(filled(queries, lengths, members), filled(keys, widths, members), tuple(groups))


def filled_up(counts: Sequence[int]) -> list[int]:
    """Return the lengths that documents are filled up to: multiples of STEP, at least one token, none longer than the longest."""
    longest = max(counts)
    return [min(max(1, -(-count // STEP)) * STEP, longest) for count in counts]


def parts_of(members: Sequence[int], most: int) -> Iterator[list[int]]:
    """Cut a list into parts of `most` members."""
    for start in range(0, len(members), most):
        yield list(members[start : start + most])


def hidden_of(counts: Sequence[int], width: int) -> Tensor | None:
    """Return which of the last keys are filling."""
    least = min(counts)
    return None if least == width else (torch.arange(least, width) >= torch.tensor(counts)[:, None])[:, None, None]


def filled(counts: Sequence[int], sizes: Sequence[int], members: Sequence[int]) -> Filled:
    """Return where the rows of documents go that are taken in the order of `members`; they have `counts` rows and `sizes` places."""
    firsts = list(accumulate(counts, initial=0))
    rows, places = torch.full((sum(sizes),), -1), torch.empty(firsts[-1], dtype=torch.int64)
    start = 0
    for member in members:
        own, count = torch.arange(firsts[member], firsts[member + 1]), counts[member]
        rows[start : start + count] = own
        places[own] = torch.arange(start, start + count)
        start += sizes[member]
    return Filled(rows.clamp(min=0), (rows < 0).nonzero()[:, 0], places)


@dataclass(frozen=True)
class Attending:
    """How the layers of a batch attend: its documents, the heads' number, and the rate at which weights are dropped."""

    groups: Groups
    heads: int
    dropout: float

    @property
    def factor(self) -> float:
        """What makes up for the weights that are dropped."""
        return 1 / (1 - self.dropout)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias_HLS: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Return what each query reads (Q, D), and each group's weights (X, L, S) with the mask of what is kept of them.

        Queries come scaled. `bias_HLS` is added to scores from its corner on; its first dimension may be 1.
        """
        queries, keys, groups = self.groups
        q_PD, k_PD, v_PD = queries.lay_out(q), keys.lay_out(k), keys.lay_out(v)
        out_PD = torch.empty_like(q_PD)
        saved = []
        for group in groups:
            weights, scores = self._weights(group, q_PD, k_PD, bias_HLS)
            saved.append(weights)
            if self.dropout:
                mask = draw((weights.shape[0] * weights.shape[1], weights.shape[2]), self.dropout)
                saved += mask
                weights = torch.mul(weights, mask.ones(weights), out=scores)
            read_XLE = torch.bmm(weights, group.asked_heads(v_PD, self.heads))
            self._put(out_PD[group.asking], group.queries, read_XLE.mul_(self.factor) if self.dropout else read_XLE)
        return queries.flat(out_PD), saved

    def _weights(self, group: Group, q_PD: Tensor, k_PD: Tensor, bias_HLS: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return softmax(QK^T + bias) (X, L, S), and memory of its size."""
        q_XLE, k_XES = group.asking_heads(q_PD, self.heads), group.asked_heads(k_PD, self.heads).transpose(1, 2)
        if bias_HLS is None:
            scores = torch.bmm(q_XLE, k_XES)
        else:
            bias = bias_HLS[:, : group.queries, : group.keys].to(q_XLE.dtype)
            bias = bias.expand(len(q_XLE) // self.heads, self.heads, -1, -1).reshape(-1, group.queries, group.keys)
            scores = torch.baddbmm(bias, q_XLE, k_XES)
        if group.hidden is not None:
            last = scores.unflatten(0, (-1, self.heads))[..., -group.hidden.shape[-1] :]
            last.masked_fill_(group.hidden, float("-inf"))
        return torch.softmax(scores, -1), scores

    def backward(
        self, gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, saved: Sequence[Tensor], dbias_HLS: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of q, k and v; add that of the bias to `dbias_HLS`."""
        queries, keys, groups = self.groups
        gradient_PD = queries.lay_out_gradient(gradient)
        if self.dropout:
            gradient_PD *= self.factor
        q_PD, k_PD, v_PD = queries.lay_out(q), keys.lay_out(k), keys.lay_out(v)
        dq_PD, dk_PD, dv_PD = torch.empty_like(q_PD), torch.empty_like(k_PD), torch.empty_like(v_PD)
        weights_of = iter(saved)
        for group in groups:
            weights = next(weights_of)
            given_XLE = group.asking_heads(gradient_PD, self.heads)
            dweights = torch.bmm(given_XLE, group.asked_heads(v_PD, self.heads).transpose(1, 2))
            left = weights
            if self.dropout:
                ones = Mask(next(weights_of), next(weights_of)).ones(weights)
                dweights *= ones
                left = ones.mul_(weights)
            self._put(dv_PD[group.asked], group.keys, torch.bmm(left.transpose(1, 2), given_XLE))
            dscores = torch._softmax_backward_data(dweights, weights, -1, weights.dtype)
            if dbias_HLS is not None:
                summed = dscores.unflatten(0, (-1, self.heads)).sum(0, dtype=dbias_HLS.dtype)
                dbias_HLS[:, : group.queries, : group.keys] += summed
            self._put(dq_PD[group.asking], group.queries, torch.bmm(dscores, group.asked_heads(k_PD, self.heads)))
            dkeys = torch.bmm(dscores.transpose(1, 2), group.asking_heads(q_PD, self.heads))
            self._put(dk_PD[group.asked], group.keys, dkeys)
        return queries.flat(dq_PD), keys.flat(dk_PD), keys.flat(dv_PD)

    def _put(self, rows: Tensor, length: int, part: Tensor) -> None:
        """Write heads (X, length, E) where they belong, side by side in rows (B length, D)."""
        heads_first(rows, length, self.heads).copy_(part.unflatten(0, (-1, self.heads)))


def heads_first(rows: Tensor, length: int, heads: int) -> Tensor:
    """Return rows of documents of one length, heads side by side, as heads of documents (B, H, length, E), a view."""
    return rows.view(-1, length, heads, rows.shape[1] // heads).transpose(1, 2)

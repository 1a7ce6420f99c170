"""Attention of documents laid end to end, forward and backward: softmax(QK^T + bias)V for each of them alone, with dropout.

As products of all heads of one document, whose scores stay in the processor's caches. torch's own kernel has no dropout on a
processor, and without it would make tensors of all documents' scores, several times over.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from llmft.models.dropout import Mask, draw

# Q and K flat tokens that ask and that are asked, H heads, E head width; L queries and S keys of a document


class Span(NamedTuple):
    """Rows of one document: `queries` of the flat ones from `first` on, `keys` from `start` on."""

    first: int
    queries: int
    start: int
    keys: int


def spans_of(queries: Sequence[int], keys: Sequence[int]) -> tuple[Span, ...]:
    """Return the rows of documents with so many queries and keys each."""
    assert len(queries) == len(keys), f"{len(queries)} documents ask, {len(keys)} are asked"
    firsts, starts = accumulate(queries, initial=0), accumulate(keys, initial=0)  # one more than there are documents
    return tuple(map(Span._make, zip(firsts, queries, starts, keys, strict=False)))


@dataclass(frozen=True)
class Attending:
    """How the layers of a batch attend: its documents, the heads' number, and the rate at which weights are dropped."""

    spans: tuple[Span, ...]
    heads: int
    dropout: float

    @property
    def factor(self) -> float:
        """What makes up for the weights that are dropped."""
        return 1 / (1 - self.dropout)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias_HLS: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Return what each query reads (Q, HE), and each document's weights (H, L, S) with the mask of what is kept of them.

        Queries come scaled. `bias_HLS` is added to scores from its corner on; its first dimension may be 1.
        """
        out = torch.empty_like(q)
        q_HQE, k_HKE, v_HKE, out_HQE = (self.heads_first(each) for each in (q, k, v, out))
        k_HEK = k_HKE.transpose(1, 2)
        saved = []
        for first, queries, start, keys in self.spans:
            asked, given = q_HQE.narrow(1, first, queries), k_HEK.narrow(2, start, keys)
            if bias_HLS is None:
                scores = torch.bmm(asked, given)
            else:
                scores = torch.baddbmm(bias_HLS[:, :queries, :keys].to(q.dtype), asked, given)
            weights = torch.softmax(scores, dim=-1)
            saved.append(weights)
            if self.dropout:
                mask = draw((self.heads * queries, keys), self.dropout)
                saved += mask
                weights = torch.mul(weights, mask.ones(weights), out=scores)
            read, place = torch.bmm(weights, v_HKE.narrow(1, start, keys)), out_HQE.narrow(1, first, queries)
            torch.mul(read, self.factor, out=place) if self.dropout else place.copy_(read)
        return out, saved

    def backward(
        self, gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, saved: Sequence[Tensor], dbias_HLS: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of q, k and v; add that of the bias to `dbias_HLS`."""
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        if self.dropout:
            gradient = gradient * self.factor
        q_HQE, k_HKE, v_HKE, gradient_HQE = (self.heads_first(each) for each in (q, k, v, gradient))
        dq_HQE, dk_HKE, dv_HKE = (self.heads_first(each) for each in (dq, dk, dv))
        v_HEK = v_HKE.transpose(1, 2)
        each = 3 if self.dropout else 1
        for place, (first, queries, start, keys) in enumerate(self.spans):
            weights, *mask = saved[each * place : each * (place + 1)]
            given = gradient_HQE.narrow(1, first, queries)
            dweights, left = torch.bmm(given, v_HEK.narrow(2, start, keys)), weights
            if mask:
                ones = Mask(*mask).ones(weights)
                dweights *= ones
                left = ones.mul_(weights)
            dv_HKE.narrow(1, start, keys).copy_(torch.bmm(left.transpose(1, 2), given))
            dscores = torch._softmax_backward_data(dweights, weights, -1, weights.dtype)
            if dbias_HLS is not None:
                dbias_HLS[:, :queries, :keys] += dscores
            dq_HQE.narrow(1, first, queries).copy_(torch.bmm(dscores, k_HKE.narrow(1, start, keys)))
            dk_HKE.narrow(1, start, keys).copy_(torch.bmm(dscores.transpose(1, 2), q_HQE.narrow(1, first, queries)))
        return dq, dk, dv

    def heads_first(self, x: Tensor) -> Tensor:
        """Return rows of heads side by side as heads of rows, a view."""
        return x.unflatten(1, (self.heads, -1)).transpose(0, 1)

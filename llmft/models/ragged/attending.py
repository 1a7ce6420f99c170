"""Attention of documents laid end to end, forward and backward: softmax(QK^T + bias)V for each of them alone, with dropout.

As products of all heads of one document, whose scores stay in the processor's caches. torch's own kernel has no dropout on a
processor, and without it would make tensors of all documents' scores, several times over.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from llmft.models.ragged.dropout import Mask, draw

# Q and K flat tokens that ask and that are asked, H heads, E head width; L queries and S keys of a document


@dataclass(frozen=True)
class Span:
    """Rows of one document: queries `first`:`last` of the flat ones, keys `start`:`stop`."""

    first: int
    last: int
    start: int
    stop: int


def spans_of(queries: Sequence[int], keys: Sequence[int]) -> tuple[Span, ...]:
    """Return the rows of documents with so many queries and keys each."""
    ends = zip(accumulate(queries), accumulate(keys), strict=True)
    return tuple(
        Span(last - count, last, stop - asked, stop) for count, asked, (last, stop) in zip(queries, keys, ends, strict=True)
    )


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
        saved = []
        for span in self.spans:
            queries, keys, values = self.parts(span, q, k, v)
            if bias_HLS is None:
                scores = torch.bmm(queries, keys.transpose(1, 2))
            else:
                bias = bias_HLS[:, : queries.shape[1], : keys.shape[1]]
                scores = torch.baddbmm(bias.to(q.dtype), queries, keys.transpose(1, 2))
            weights = torch.softmax(scores, dim=-1)
            saved.append(weights)
            if self.dropout:
                mask = draw((self.heads * queries.shape[1], keys.shape[1]), self.dropout)
                saved += mask
                weights = torch.mul(weights, mask.ones(weights), out=scores)
            read = torch.bmm(weights, values).transpose(0, 1)
            place = self.heads_first(out[span.first : span.last]).transpose(0, 1)
            torch.mul(read, self.factor, out=place) if self.dropout else place.copy_(read)
        return out, saved

    def backward(
        self, gradient: Tensor, q: Tensor, k: Tensor, v: Tensor, saved: Sequence[Tensor], dbias_HLS: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of q, k and v; add that of the bias to `dbias_HLS`."""
        dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        if self.dropout:
            gradient = gradient * self.factor
        each = 3 if self.dropout else 1
        for place, span in enumerate(self.spans):
            weights, *mask = saved[each * place : each * (place + 1)]
            queries, keys, values = self.parts(span, q, k, v)
            given = self.heads_first(gradient[span.first : span.last])
            dweights, left = torch.bmm(given, values.transpose(1, 2)), weights
            if mask:
                ones = Mask(*mask).ones(weights)
                dweights *= ones
                left = ones.mul_(weights)
            self.put(torch.bmm(left.transpose(1, 2), given), dv[span.start : span.stop])
            dscores = torch._softmax_backward_data(dweights, weights, -1, weights.dtype)
            if dbias_HLS is not None:
                dbias_HLS[:, : queries.shape[1], : keys.shape[1]] += dscores
            self.put(torch.bmm(dscores, keys), dq[span.first : span.last])
            self.put(torch.bmm(dscores.transpose(1, 2), queries), dk[span.start : span.stop])
        return dq, dk, dv

    def parts(self, span: Span, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return a document's queries (H, L, E), keys and values (H, S, E), as views."""
        keys = slice(span.start, span.stop)
        return self.heads_first(q[span.first : span.last]), self.heads_first(k[keys]), self.heads_first(v[keys])

    def heads_first(self, x: Tensor) -> Tensor:
        """Return rows of heads side by side as heads of rows, a view."""
        return x.unflatten(1, (self.heads, -1)).transpose(0, 1)

    def put(self, x_HLE: Tensor, out: Tensor) -> None:
        """Write heads of rows into rows of heads side by side."""
        self.heads_first(out).copy_(x_HLE)

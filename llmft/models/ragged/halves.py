"""The halves of a transformer layer, each one autograd Function: attention and feed-forward, with norm, dropout and residual.

Written out forward and backward, so that little is kept and memory is passed over few times: dropout costs a byte and one pass,
residuals are added where products stand.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from llmft.models.ragged.attending import Attending
from llmft.models.ragged.dropout import Mask, draw
from llmft.models.ragged.norm import Norm, normalise, normalise_backward

# N flat tokens, K flat tokens that are read, D model width, F width of the feed-forward layer, H heads

Gradients = tuple[Tensor | None, ...]


class Linear(NamedTuple):
    """A linear layer: weight (O, I), bias (O) or None."""

    weight: Tensor
    bias: Tensor | None

    def forward(self, x: Tensor, factor: float = 1) -> Tensor:
        """factor * xW^T + b."""
        weight = self.weight.to(x.dtype)
        if self.bias is not None:
            return torch.addmm(self.bias.to(x.dtype), x, weight.t(), alpha=factor)
        return x @ weight.t() if factor == 1 else (x @ weight.t()).mul_(factor)

    def backward(self, gradient: Tensor, x: Tensor, of_bias: Tensor | None = None) -> Gradients:
        """Return the gradients of weight and bias, None where they are frozen; `of_bias`: where its gradient is another."""
        dweight = gradient.t() @ x if self.weight.requires_grad else None
        if self.bias is None or not self.bias.requires_grad:
            return dweight, None
        return dweight, (gradient if of_bias is None else of_bias).sum(0)


class Activation(NamedTuple):
    """An activation function and its gradient by what came in; `by_output`: by what came out, which is then all that is kept."""

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]
    by_output: bool = False


ACTIVATIONS = {
    "relu": Activation(torch.relu, lambda gradient, out: torch.ops.aten.threshold_backward(gradient, out, 0), by_output=True),
    "gelu": Activation(F.gelu, torch.ops.aten.gelu_backward),
    "gelu_new": Activation(
        lambda x: F.gelu(x, approximate="tanh"),
        lambda gradient, x: torch.ops.aten.gelu_backward(gradient, x, approximate="tanh"),
    ),
    "silu": Activation(F.silu, torch.ops.aten.silu_backward),
}
"""By transformers' names."""
ACTIVATIONS |= {"swish": ACTIVATIONS["silu"], "gelu_pytorch_tanh": ACTIVATIONS["gelu_new"]}


@dataclass(frozen=True)
class Wrap:
    """What stands around a half's function f: h + dropout(f(norm(h))) where the norm comes `first`, else norm(h + dropout(f(h)))."""

    first: bool
    eps: float
    dropout: float

    def open(self, h_ND: Tensor, norm: Norm) -> tuple[Tensor, list[Tensor | None]]:
        """Return what f reads, and mean and scale of the norm if it comes first."""
        if not self.first:
            return h_ND, []
        x_ND, mean, inverse = normalise(h_ND, norm)
        return x_ND, [mean, inverse]

    def close(self, h_ND: Tensor, y_ND: Tensor, norm: Norm) -> tuple[Tensor, list[Tensor | None]]:
        """Return the half's output of f's, and what the backward pass reads: a mask, and the norm's input."""
        mask = draw(y_ND.shape, self.dropout) if self.dropout else (None, None)
        if isinstance(mask, Mask):
            sum_ND = torch.addcmul(h_ND, y_ND, mask.ones(y_ND), value=1 / (1 - self.dropout))
        else:
            sum_ND = h_ND + y_ND
        if self.first:
            return sum_ND, [*mask]
        out_ND, mean, inverse = normalise(sum_ND, norm)
        return out_ND, [*mask, sum_ND, mean, inverse]

    def close_backward(self, gradient_ND: Tensor, saved: list[Any], norm: Norm) -> tuple[Tensor, Tensor, Gradients]:
        """Return the gradients of h past f, of f's output, and of the norm's weight and bias where it comes last."""
        found: Gradients = ()
        if not self.first:
            sum_ND, mean, inverse = saved[2:5]
            gradient_ND, *rest = normalise_backward(gradient_ND, sum_ND, mean, inverse, norm)
            found = tuple(rest)
        dy_ND = gradient_ND
        if self.dropout:
            dy_ND = Mask(*saved[:2]).ones(gradient_ND).mul_(gradient_ND).mul_(1 / (1 - self.dropout))
        return gradient_ND, dy_ND, found

    def open_backward(
        self, dx_ND: Tensor, dh_ND: Tensor, h_ND: Tensor, saved: list[Any], norm: Norm
    ) -> tuple[Tensor, Gradients]:
        """Return the gradients of h, of what f reads (written over) and of h past f, and those of a norm that comes first."""
        if not self.first:
            return dx_ND, ()
        dx_ND, *rest = normalise_backward(dx_ND, h_ND, saved[0], saved[1], norm)
        return dx_ND.add_(dh_ND), tuple(rest)


class AttentionHalf(Function):
    """A layer's attention, o(attention(q(x), k(m), v(m))): m is x for self-attention, else the memory, what another stack has read.

    tensors: weight and bias of the norm, q, k, v and o.
    """

    @staticmethod
    def forward(
        ctx: Any,
        wrap: Wrap,
        attending: Attending,
        scale: float,
        h_ND: Tensor,
        memory_KD: Tensor | None,
        bias_HLS: Tensor | None,
        *tensors: Any,
    ) -> Tensor:
        norm, q, k, v, o = Norm(tensors[0], tensors[1], wrap.eps), *(Linear(*tensors[at : at + 2]) for at in (2, 4, 6, 8))
        x_ND, opened = wrap.open(h_ND, norm)
        read_KD = x_ND if memory_KD is None else memory_KD
        asked, keys, values = q.forward(x_ND), k.forward(read_KD), v.forward(read_KD)
        if scale != 1:
            asked *= scale
        out, weights = attending.forward(asked, keys, values, bias_HLS)
        found_ND, closed = wrap.close(h_ND, o.forward(out), norm)
        ctx.wrap, ctx.attending, ctx.scale, ctx.counts = wrap, attending, scale, (len(opened), len(closed))
        ctx.save_for_backward(
            h_ND,
            memory_KD,
            bias_HLS,
            x_ND if wrap.first else None,
            asked,
            keys,
            values,
            out,
            *tensors,
            *opened,
            *closed,
            *weights,
        )
        return found_ND

    @staticmethod
    def backward(ctx: Any, gradient_ND: Tensor) -> Gradients:
        wrap, attending = ctx.wrap, ctx.attending
        h_ND, memory_KD, bias_HLS, x_ND, asked, keys, values, out, *rest = ctx.saved_tensors
        tensors, rest = rest[:10], rest[10:]
        norm, q, k, v, o = Norm(tensors[0], tensors[1], wrap.eps), *(Linear(*tensors[at : at + 2]) for at in (2, 4, 6, 8))
        opened, closed, weights = rest[: ctx.counts[0]], rest[ctx.counts[0] : sum(ctx.counts)], rest[sum(ctx.counts) :]
        if x_ND is None:
            x_ND = h_ND
        read_KD = x_ND if memory_KD is None else memory_KD
        dh_ND, dy_ND, dnorm = wrap.close_backward(gradient_ND, closed, norm)
        do = o.backward(dy_ND, out)
        dbias_HLS = torch.zeros_like(bias_HLS) if bias_HLS is not None and ctx.needs_input_grad[5] else None
        dasked, dkeys, dvalues = attending.backward(dy_ND @ o.weight.to(dy_ND.dtype), asked, keys, values, weights, dbias_HLS)
        if ctx.scale != 1:
            dasked *= ctx.scale
        dq, dk, dv = q.backward(dasked, x_ND), k.backward(dkeys, read_KD), v.backward(dvalues, read_KD)
        wq, wk, wv = (each.weight.to(dasked.dtype) for each in (q, k, v))
        # a norm that comes last leaves h + f(h): what goes past f is added by the product
        dx_ND = dasked @ wq if wrap.first else torch.addmm(dh_ND, dasked, wq)
        dmemory_KD = None
        if memory_KD is None:
            dx_ND.addmm_(dkeys, wk).addmm_(dvalues, wv)
        elif ctx.needs_input_grad[4]:
            dmemory_KD = (dkeys @ wk).addmm_(dvalues, wv)
        dx_ND, dfirst = wrap.open_backward(dx_ND, dh_ND, h_ND, opened, norm)
        return None, None, None, dx_ND, dmemory_KD, dbias_HLS, *(dfirst or dnorm), *dq, *dk, *dv, *do


class FeedForwardHalf(Function):
    """A layer's feed-forward part, down(dropout(act(up(x)))), or with act(up(x)) * gate(x) where there is a gate.

    tensors: weight and bias of the norm, up, gate (None: no gate) and down.
    """

    @staticmethod
    def forward(ctx: Any, wrap: Wrap, activation: Activation, dropout: float, h_ND: Tensor, *tensors: Any) -> Tensor:
        norm, up, down = Norm(tensors[0], tensors[1], wrap.eps), Linear(*tensors[2:4]), Linear(*tensors[6:8])
        x_ND, opened = wrap.open(h_ND, norm)
        up_NF = up.forward(x_ND)
        active_NF = activation.forward(up_NF)
        inner_NF, gate_NF = active_NF, None
        if tensors[4] is not None:
            gate_NF = Linear(*tensors[4:6]).forward(x_ND)
            inner_NF = active_NF * gate_NF
        mask: Any = (None, None)
        if dropout:
            mask = draw(inner_NF.shape, dropout)
            inner_NF = mask.ones(inner_NF).mul_(inner_NF)
        out_ND, closed = wrap.close(h_ND, down.forward(inner_NF, 1 / (1 - dropout)), norm)
        ctx.wrap, ctx.activation, ctx.factor, ctx.opened = wrap, activation, 1 / (1 - dropout), len(opened)
        read = h_ND, x_ND if wrap.first else None
        if gate_NF is not None:
            ctx.save_for_backward(*read, up_NF, gate_NF, active_NF, inner_NF, *mask, *tensors, *opened, *closed)
        elif activation.by_output:  # what was dropped is 0 then, as what is not active
            ctx.save_for_backward(*read, None, None, None, inner_NF, None, None, *tensors, *opened, *closed)
        else:
            ctx.save_for_backward(*read, up_NF, None, None, inner_NF, *mask, *tensors, *opened, *closed)
        return out_ND

    @staticmethod
    def backward(ctx: Any, gradient_ND: Tensor) -> Gradients:
        wrap, activation = ctx.wrap, ctx.activation
        h_ND, x_ND, up_NF, gate_NF, active_NF, inner_NF, drawn, least, *rest = ctx.saved_tensors
        tensors, rest = rest[:8], rest[8:]
        norm, up, down = Norm(tensors[0], tensors[1], wrap.eps), Linear(*tensors[2:4]), Linear(*tensors[6:8])
        if x_ND is None:
            x_ND = h_ND
        dh_ND, dy_ND, dnorm = wrap.close_backward(gradient_ND, rest[ctx.opened :], norm)
        scaled_ND = dy_ND if ctx.factor == 1 else dy_ND * ctx.factor
        ddown = down.backward(scaled_ND, inner_NF, dy_ND)
        dinner_NF = scaled_ND @ down.weight.to(dy_ND.dtype)
        if drawn is not None:
            dinner_NF *= Mask(drawn, least).ones(dinner_NF)
        dgate_NF = None
        if gate_NF is not None:
            dgate_NF = dinner_NF * active_NF
            dinner_NF *= gate_NF
        dup_NF = activation.backward(dinner_NF, inner_NF if up_NF is None else up_NF)
        weight = up.weight.to(dup_NF.dtype)
        dx_ND = dup_NF @ weight if wrap.first else torch.addmm(dh_ND, dup_NF, weight)
        dgate: Gradients = (None, None)
        if dgate_NF is not None:
            gate = Linear(*tensors[4:6])
            dgate = gate.backward(dgate_NF, x_ND)
            dx_ND.addmm_(dgate_NF, gate.weight.to(dgate_NF.dtype))
        dup = up.backward(dup_NF, x_ND)
        dx_ND, dfirst = wrap.open_backward(dx_ND, dh_ND, h_ND, rest[: ctx.opened], norm)
        return None, None, None, dx_ND, *(dfirst or dnorm), *dup, *dgate, *ddown

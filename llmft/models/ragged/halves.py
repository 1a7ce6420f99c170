"""The halves of a transformer layer, each one autograd Function: attention and feed-forward, with norm, dropout and residual.

Written out forward and backward, so that little is kept and memory is passed over few times: dropout costs a byte and one pass,
residuals are added where products stand.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from llmft.models.dropout import Mask, draw
from llmft.models.projection import Low, Projection, project, project_backward, ungrouped
from llmft.models.ragged.attending import Attending, Held
from llmft.models.ragged.norm import Norm, normalise, normalise_backward

# N flat tokens, K flat tokens that are read, D model width, F width of the feed-forward layer, H heads

Gradients = tuple[Tensor | None, ...]


class Activation(NamedTuple):
    """An activation function and its gradient by what came in.

    `by_output`: by what came out, which is then all that is kept, in the place of what came in.
    """

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]
    by_output: bool = False


def relu_backward(gradient: Tensor, out: Tensor) -> Tensor:
    """Write the gradient of relu's input over that of its output."""
    return torch.ops.aten.threshold_backward.grad_input(gradient, out, 0, grad_input=gradient)


ACTIVATIONS = {
    "relu": Activation(torch.relu_, relu_backward, by_output=True),
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

    bias_HLS: the one of `attending` as it is trained, in its own format, for which the backward pass has a gradient; None without.
    tensors: weight and bias of the norm, then those of the projections q, k, v and o.
    """

    @staticmethod
    def forward(
        ctx: Any,
        wrap: Wrap,
        attending: Attending,
        scale: float,
        projections: Sequence[Projection],
        h_ND: Tensor,
        memory_KD: Tensor | None,
        bias_HLS: Tensor | None,
        *tensors: Any,
    ) -> Tensor:
        assert (bias_HLS is None) is (attending.bias_HLS is None)
        norm, (q, k, v, o) = Norm(tensors[0], tensors[1], wrap.eps), ungrouped(projections, tensors[2:])
        x_ND, opened = wrap.open(h_ND, norm)
        if memory_KD is None:
            (asked, keys, values), low = project(x_ND, [q, k, v])
            low_memory = Low()
        else:
            (asked,), low = project(x_ND, [q])
            (keys, values), low_memory = project(memory_KD, [k, v])
        if scale != 1:
            asked *= scale
        out, held = attending.forward(asked, keys, values)
        (y_ND,), low_out = project(out, [o])
        found_ND, closed = wrap.close(h_ND, y_ND, norm)
        ctx.wrap, ctx.attending, ctx.scale, ctx.projections = wrap, attending, scale, projections
        read = (h_ND, memory_KD, bias_HLS, x_ND if wrap.first else None, out, *held[:3])
        ctx.counts = (len(tensors), len(opened), len(closed))
        ctx.save_for_backward(*read, *low, *low_memory, *low_out, *tensors, *opened, *closed, *held.each)
        return found_ND

    @staticmethod
    def backward(ctx: Any, gradient_ND: Tensor) -> Gradients:
        wrap, attending = ctx.wrap, ctx.attending
        h_ND, memory_KD, bias_HLS, x_ND, out, q_PE, k_PE, v_PE, *rest = ctx.saved_tensors
        low, low_memory, low_out = Low(*rest[:3]), Low(*rest[3:6]), Low(*rest[6:9])
        tensors, opened, closed, weights = parted(rest[9:], ctx.counts)
        norm, (q, k, v, o) = Norm(tensors[0], tensors[1], wrap.eps), ungrouped(ctx.projections, tensors[2:])
        if x_ND is None:
            x_ND = h_ND
        dh_ND, dy_ND, dnorm = wrap.close_backward(gradient_ND, closed, norm)
        dout, found_o = project_backward(out, [o], low_out, [dy_ND])
        dbias_HLS = torch.zeros_like(bias_HLS) if bias_HLS is not None and ctx.needs_input_grad[6] else None
        dasked, dkeys, dvalues = attending.backward(dout, Held(q_PE, k_PE, v_PE, weights), dbias_HLS)
        if ctx.scale != 1:
            dasked *= ctx.scale
        past_ND = None if wrap.first else dh_ND  # a norm that comes last leaves h + f(h)
        dmemory_KD = None
        if memory_KD is None:
            dx_ND, found = project_backward(x_ND, [q, k, v], low, [dasked, dkeys, dvalues], past_ND)
        else:
            dx_ND, found_q = project_backward(x_ND, [q], low, [dasked], past_ND)
            dmemory_KD, found_kv = project_backward(memory_KD, [k, v], low_memory, [dkeys, dvalues])
            found = [*found_q, *found_kv]
        dx_ND, dfirst = wrap.open_backward(dx_ND, dh_ND, h_ND, opened, norm)
        return None, None, None, None, dx_ND, dmemory_KD, dbias_HLS, *(dfirst or dnorm), *found, *found_o


class FeedForwardHalf(Function):
    """A layer's feed-forward part, down(dropout(act(up(x)))), or with act(up(x)) * gate(x) where there is a gate.

    tensors: weight and bias of the norm, then those of the projections up, gate if there is one, and down.
    """

    @staticmethod
    def forward(
        ctx: Any,
        wrap: Wrap,
        activation: Activation,
        dropout: float,
        projections: Sequence[Projection],
        h_ND: Tensor,
        *tensors: Any,
    ) -> Tensor:
        norm, (*ups, down) = Norm(tensors[0], tensors[1], wrap.eps), ungrouped(projections, tensors[2:])
        x_ND, opened = wrap.open(h_ND, norm)
        (up_NF, *gates), low = project(x_ND, ups)
        active_NF = activation.forward(up_NF)
        inner_NF = active_NF * gates[0] if gates else active_NF
        mask: Any = (None, None)
        if dropout:
            mask = draw(inner_NF.shape, dropout)
            inner_NF = mask.ones(inner_NF).mul_(inner_NF)
        factor = 1 / (1 - dropout)
        (y_ND,), low_down = project(inner_NF, [down], factor=factor)
        out_ND, closed = wrap.close(h_ND, y_ND, norm)
        inner: tuple[Tensor | None, ...] = (up_NF, None, None, inner_NF, *mask)
        if gates:
            inner = (up_NF, gates[0], active_NF, inner_NF, *mask)
        elif activation.by_output:  # what was dropped is 0 then, as what is not active
            inner = (None, None, None, inner_NF, None, None)
        ctx.wrap, ctx.activation, ctx.factor, ctx.projections = wrap, activation, factor, projections
        ctx.counts = (len(tensors), len(opened), len(closed))
        ctx.save_for_backward(h_ND, x_ND if wrap.first else None, *inner, *low, *low_down, *tensors, *opened, *closed)
        return out_ND

    @staticmethod
    def backward(ctx: Any, gradient_ND: Tensor) -> Gradients:
        wrap, activation = ctx.wrap, ctx.activation
        h_ND, x_ND, up_NF, gate_NF, active_NF, inner_NF, drawn, least, *rest = ctx.saved_tensors
        low, low_down = Low(*rest[:3]), Low(*rest[3:6])
        tensors, opened, closed, _ = parted(rest[6:], ctx.counts)
        norm, (*ups, down) = Norm(tensors[0], tensors[1], wrap.eps), ungrouped(ctx.projections, tensors[2:])
        if x_ND is None:
            x_ND = h_ND
        dh_ND, dy_ND, dnorm = wrap.close_backward(gradient_ND, closed, norm)
        dinner_NF, found_down = project_backward(inner_NF, [down], low_down, [dy_ND], factor=ctx.factor)
        if drawn is not None:
            dinner_NF *= Mask(drawn, least).ones(dinner_NF)
        dgates = []
        if gate_NF is not None:
            dgates = [dinner_NF * active_NF]
            dinner_NF *= gate_NF
        dup_NF = activation.backward(dinner_NF, inner_NF if up_NF is None else up_NF)
        past_ND = None if wrap.first else dh_ND
        dx_ND, found = project_backward(x_ND, ups, low, [dup_NF, *dgates], past_ND)
        dx_ND, dfirst = wrap.open_backward(dx_ND, dh_ND, h_ND, opened, norm)
        return None, None, None, None, dx_ND, *(dfirst or dnorm), *found, *found_down


def parted(tensors: Sequence[Any], counts: Sequence[int]) -> list[list[Any]]:
    """Cut a list into lists of so many each, and the rest."""
    ends = [0, *accumulate(counts), len(tensors)]
    return [list(tensors[start:stop]) for start, stop in pairwise(ends)]

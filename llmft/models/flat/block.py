"""The two halves of a decoder layer, each one autograd Function: h + attention(norm(h)) and h + feed_forward(norm(h)).

Written out forward and backward, so that little is kept (what comes in, and the outputs of the first products) and little is
passed over memory. What is not kept is computed again: norms and activations, which are cheap, never a large product.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.autograd import Function

from llmft.hardware.arena import Arena, kept
from llmft.models.flat.attending import Attending
from llmft.models.flat.pointwise import gated, gated_backward, gated_parts, normed, rms_norm, rms_norm_backward
from llmft.models.projection import Low, Projection, project, project_backward, ungrouped
from llmft.models.rounding import narrow

# N flat tokens, Q of them that ask (all but in a model's last layer), D model width, H query heads, K key/value heads, E head width


class AttentionHalf(Function):
    """h + o(attention(q(x), k(x), v(x))) with x = norm(h); of the rows that ask alone, where `attending` names some.

    The last two tensors are the weights (E) of norms over each head of queries and keys (Qwen3), or None.
    """

    @staticmethod
    def forward(
        ctx: Any,
        h_ND: Tensor,
        norm_D: Tensor,
        eps: float,
        attending: Attending,
        projections: Sequence[Projection],
        *tensors: Tensor | None,
    ) -> Tensor:
        q, k, v, o = ungrouped(projections, tensors)
        x_ND, scale_N1 = rms_norm(h_ND, narrow(norm_D, h_ND.dtype), eps)
        asked, arena = attending.rows, attending.arena
        normed_heads = tensors[-1] is not None  # whose norms read again what comes in
        if asked is None:
            (q_out, k_out, v_out), low = project(x_ND, [q, k, v], arena=arena, kept=[normed_heads, normed_heads, False])
            low_q, residual = Low(), h_ND
        else:
            (q_out,), low_q = project(x_ND[asked], [q], arena=arena, kept=[normed_heads])
            (k_out, v_out), low = project(x_ND, [k, v], arena=arena, kept=[normed_heads, False])
            residual = h_ND[asked]
        q_QHE, scale_q = norm_heads(attending.heads(q_out), tensors[-2], eps)
        k_NKE, scale_k = norm_heads(attending.heads(k_out), tensors[-1], eps)
        raw = (None, None) if scale_q is None else (q_out, k_out)
        out_QHE, ctx.held = attending.forward(q_QHE, k_NKE, attending.heads(v_out))
        (out_QD,), low_o = project(out_QHE.flatten(1), [o], residual, arena=arena)
        ctx.attending, ctx.projections, ctx.norm_D = attending, projections, norm_D
        scales = kept(arena, scale_N1), *(None if each is None else kept(arena, each) for each in (scale_q, scale_k))
        ctx.save_for_backward(h_ND, scales[0], out_QHE, *low, *low_q, *low_o, *raw, *scales[1:], *tensors)
        return out_QD

    @staticmethod
    def backward(ctx: Any, gradient_QD: Tensor) -> tuple[Tensor | None, ...]:
        h_ND, scale_N1, out_QHE, *saved = ctx.saved_tensors
        norm_D = ctx.norm_D
        low, low_q, low_o = Low(*saved[:3]), Low(*saved[3:6]), Low(*saved[6:9])
        q_raw, k_raw, scale_q, scale_k, *tensors = saved[9:]
        q, k, v, o = ungrouped(ctx.projections, tensors)
        attending: Attending = ctx.attending
        dout, found_o = project_backward(out_QHE.flatten(1), [o], low_o, [gradient_QD])
        dq, dk, dv = attending.backward(ctx.held, dout.view_as(out_QHE))
        ctx.held = ctx.attending = None  # and with it the arena
        dq, dnorm_q = norm_heads_backward(dq, q_raw, scale_q, tensors[-2])
        dk, dnorm_k = norm_heads_backward(dk, k_raw, scale_k, tensors[-1])
        x_ND = normed(h_ND, scale_N1, narrow(norm_D, h_ND.dtype))
        asked = attending.rows
        if asked is None:
            dx_ND, found = project_backward(x_ND, [q, k, v], low, [dq, dk, dv])
        else:
            dx_ND, found_kv = project_backward(x_ND, [k, v], low, [dk, dv])
            dx_QD, found_q = project_backward(x_ND[asked], [q], low_q, [dq])
            dx_ND.index_add_(0, asked, dx_QD)
            found = [*found_q, *found_kv]
        dh_ND, dnorm_D = rms_norm_backward(dx_ND, h_ND, scale_N1, norm_D)
        if asked is None:
            dh_ND += gradient_QD
        else:
            dh_ND.index_add_(0, asked, gradient_QD)
        return dh_ND, dnorm_D, None, None, None, *found, *found_o, dnorm_q, dnorm_k


def norm_heads(x_NHE: Tensor, weight_E: Tensor | None, eps: float) -> tuple[Tensor, Tensor | None]:
    """Norm each head; without a weight, nothing happens."""
    return (x_NHE, None) if weight_E is None else rms_norm(x_NHE, narrow(weight_E, x_NHE.dtype), eps)


def norm_heads_backward(
    gradient: Tensor, raw: Tensor | None, scale: Tensor | None, weight_E: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return the gradients of the heads, laid side by side, and of the weight."""
    if raw is None or scale is None or weight_E is None:
        return gradient.flatten(1), None
    found, dweight_E = rms_norm_backward(gradient.contiguous(), raw.view_as(gradient), scale, weight_E)
    return found.flatten(1), dweight_E


class FeedForwardHalf(Function):
    """h + down(silu(gate(x)) * up(x)) with x = norm(h)."""

    @staticmethod
    def forward(
        ctx: Any,
        h_ND: Tensor,
        norm_D: Tensor,
        eps: float,
        arena: Arena | None,
        projections: Sequence[Projection],
        *tensors: Tensor | None,
    ) -> Tensor:
        gate, up, down = ungrouped(projections, tensors)
        x_ND, scale_N1 = rms_norm(h_ND, narrow(norm_D, h_ND.dtype), eps)
        (gate_NF, up_NF), low = project(x_ND, [gate, up], arena=arena)
        (out_ND,), low_down = project(gated(gate_NF, up_NF), [down], h_ND, arena=arena)
        ctx.projections, ctx.norm_D, ctx.arena = projections, norm_D, arena  # the arena is there as long as what lies in it
        ctx.save_for_backward(h_ND, kept(arena, scale_N1), gate_NF, up_NF, *low, *low_down, *tensors)
        return out_ND

    @staticmethod
    def backward(ctx: Any, gradient_ND: Tensor) -> tuple[Tensor | None, ...]:
        h_ND, scale_N1, gate_NF, up_NF, *saved = ctx.saved_tensors
        norm_D = ctx.norm_D
        low, low_down, tensors = Low(*saved[:3]), Low(*saved[3:6]), saved[6:]
        gate, up, down = ungrouped(ctx.projections, tensors)
        ctx.arena = None
        silu_NF, inner_NF = gated_parts(gate_NF, up_NF)
        dinner_NF, found_down = project_backward(inner_NF, [down], low_down, [gradient_ND])
        del inner_NF  # its room is the next one's
        dgate_NF, dup_NF = gated_backward(dinner_NF, gate_NF, up_NF, silu_NF)
        x_ND = normed(h_ND, scale_N1, narrow(norm_D, h_ND.dtype))
        dx_ND, found = project_backward(x_ND, [gate, up], low, [dgate_NF, dup_NF])
        dh_ND, dnorm_D = rms_norm_backward(dx_ND, h_ND, scale_N1, norm_D)
        dh_ND += gradient_ND
        return dh_ND, dnorm_D, None, None, None, *found, *found_down

"""The two halves of a decoder layer, each one autograd Function: h + attention(norm(h)) and h + feed_forward(norm(h)).

Written out forward and backward, so that little is kept (what comes in, and the outputs of the first products) and little is
passed over memory. What is not kept is computed again: norms and activations, which are cheap, never a large product.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.autograd import Function

from llmft.models.flat.attending import Attending
from llmft.models.flat.pointwise import gated, gated_backward, rms_norm, rms_norm_backward, scaled
from llmft.models.flat.projection import Projection, project, project_backward, ungrouped

# N flat tokens, Q of them that ask (all but in a model's last layer), D model width, H query heads, K key/value heads, E head width


class AttentionHalf(Function):
    """h + o(attention(q(x), k(x), v(x))) with x = norm(h); of the rows that ask alone, where `attending` names some."""

    @staticmethod
    def forward(
        ctx: Any, h_ND: Tensor, norm_D: Tensor, eps: float, attending: Attending, projections: Sequence[Projection], *tensors: Tensor | None
    ) -> Tensor:
        q, k, v, o = ungrouped(projections, tensors)
        x_ND, scale_N1 = rms_norm(h_ND, norm_D, eps)
        asked = attending.rows
        if asked is None:
            (q_out, k_out, v_out), low = project(x_ND, [q, k, v])
            lows = (low,)
            residual = h_ND
        else:
            (q_out,), low_q = project(x_ND[asked], [q])
            (k_out, v_out), low = project(x_ND, [k, v])
            lows = (low, low_q)
            residual = h_ND[asked]
        out_QHE, ctx.held = attending.forward(q_out, k_out, v_out)
        (out_QD,), low_o = project(out_QHE.flatten(1), [o], residual)
        ctx.attending, ctx.projections = attending, projections
        ctx.lows = len(lows)
        ctx.save_for_backward(h_ND, norm_D, scale_N1, out_QHE, low_o, *lows, *tensors)
        return out_QD

    @staticmethod
    def backward(ctx: Any, gradient_QD: Tensor) -> tuple[Tensor | None, ...]:
        h_ND, norm_D, scale_N1, out_QHE, low_o, *rest = ctx.saved_tensors
        lows, tensors = rest[: ctx.lows], rest[ctx.lows :]
        q, k, v, o = ungrouped(ctx.projections, tensors)
        dout, found_o = project_backward(out_QHE.flatten(1), [o], low_o, [gradient_QD])
        x_ND = scaled(h_ND, scale_N1).mul_(norm_D.to(h_ND.dtype))
        dq, dk, dv = ctx.attending.backward(ctx.held, dout.view_as(out_QHE))
        ctx.held = None
        asked = ctx.attending.rows
        if asked is None:
            dx_ND, found = project_backward(x_ND, [q, k, v], lows[0], [dq, dk, dv])
        else:
            dx_ND, found_kv = project_backward(x_ND, [k, v], lows[0], [dk, dv])
            dx_QD, found_q = project_backward(x_ND[asked], [q], lows[1], [dq])
            dx_ND.index_add_(0, asked, dx_QD)
            found = [*found_q, *found_kv]
        dh_ND, dnorm_D = rms_norm_backward(dx_ND, h_ND, scale_N1, norm_D)
        if asked is None:
            dh_ND += gradient_QD
        else:
            dh_ND.index_add_(0, asked, gradient_QD)
        return dh_ND, dnorm_D, None, None, None, *found, *found_o


class FeedForwardHalf(Function):
    """h + down(silu(gate(x)) * up(x)) with x = norm(h)."""

    @staticmethod
    def forward(ctx: Any, h_ND: Tensor, norm_D: Tensor, eps: float, projections: Sequence[Projection], *tensors: Tensor | None) -> Tensor:
        gate, up, down = ungrouped(projections, tensors)
        x_ND, scale_N1 = rms_norm(h_ND, norm_D, eps)
        (gate_NF, up_NF), low = project(x_ND, [gate, up])
        (out_ND,), low_down = project(gated(gate_NF, up_NF), [down], h_ND)
        ctx.projections = projections
        ctx.save_for_backward(h_ND, norm_D, scale_N1, gate_NF, up_NF, low, low_down, *tensors)
        return out_ND

    @staticmethod
    def backward(ctx: Any, gradient_ND: Tensor) -> tuple[Tensor | None, ...]:
        h_ND, norm_D, scale_N1, gate_NF, up_NF, low, low_down, *tensors = ctx.saved_tensors
        gate, up, down = ungrouped(ctx.projections, tensors)
        dinner_NF, found_down = project_backward(gated(gate_NF, up_NF), [down], low_down, [gradient_ND])
        dgate_NF, dup_NF = gated_backward(dinner_NF, gate_NF, up_NF)
        x_ND = scaled(h_ND, scale_N1).mul_(norm_D.to(h_ND.dtype))
        dx_ND, found = project_backward(x_ND, [gate, up], low, [dgate_NF, dup_NF])
        dh_ND, dnorm_D = rms_norm_backward(dx_ND, h_ND, scale_N1, norm_D)
        dh_ND += gradient_ND
        return dh_ND, dnorm_D, None, None, *found, *found_down

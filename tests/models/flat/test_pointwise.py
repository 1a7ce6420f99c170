"""Norm, rotation and gate against torch's and transformers' own, and their gradients against autograd's."""

import pytest
import torch
import torch.nn.functional as F
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from llmft.models.flat import pointwise
from llmft.models.flat.pointwise import gated, gated_backward, gated_parts, normed, rms_norm, rms_norm_backward, rotate


def random(*shape):
    return torch.randn(*shape, requires_grad=True)


@pytest.mark.parametrize("shape", [(5, 8), (5, 3, 8), (0, 8)])
@pytest.mark.parametrize("block", [1, 50, 1 << 18])  # one row at a time; two or six, and what is left; all
def test_norm(monkeypatch, shape, block):
    monkeypatch.setattr(pointwise, "BLOCK_NUMBERS", block)
    torch.manual_seed(0)
    x, weight = random(*shape), random(8)
    expected = F.rms_norm(x, (8,), weight, 1e-5)
    found, scale = rms_norm(x.detach(), weight.detach(), 1e-5)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-6, atol=1e-6)  # the scale is float32
    torch.testing.assert_close(normed(x.detach(), scale, weight.detach()), found)
    incoming = torch.randn_like(found)
    wanted = torch.autograd.grad(expected, [x, weight], incoming)
    with torch.no_grad():
        dx, dweight = rms_norm_backward(incoming.clone(), x, scale, weight)
    torch.testing.assert_close(dx, wanted[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(dweight, wanted[1], rtol=1e-5, atol=1e-6)


def test_rotation():
    torch.manual_seed(0)
    x = torch.randn(5, 3, 8)
    angle = torch.rand(5, 4)
    cos, sin = (torch.cat([function(angle)] * 2, dim=-1) for function in (torch.cos, torch.sin))
    expected, _ = apply_rotary_pos_emb(x.transpose(0, 1)[None], x.transpose(0, 1)[None], cos[None], sin[None])
    found = rotate(x, cos[:, None], sin[:, None])
    torch.testing.assert_close(found, expected[0].transpose(0, 1))
    torch.testing.assert_close(rotate(found, cos[:, None], -sin[:, None]), x)


def test_gate():
    torch.manual_seed(0)
    gate, up = random(5, 8), random(5, 8)
    expected = F.silu(gate) * up
    torch.testing.assert_close(gated(gate.detach(), up.detach()), expected.detach())
    silu, inner = gated_parts(gate.detach(), up.detach())
    torch.testing.assert_close(inner, expected.detach())
    incoming = torch.randn_like(inner)
    wanted = torch.autograd.grad(expected, [gate, up], incoming)
    found = gated_backward(incoming.clone(), gate.detach(), up.detach(), silu)
    for one, two in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, two)

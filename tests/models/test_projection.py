"""Linear layers with and without low-rank updates against what autograd makes of the formula, in float64."""

import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora import Linear as LoraLinear
from torch import nn

from llmft.models.projection import Projection, Update, project, project_backward, projection_of

TOKENS, WIDTH = 7, 6


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def made(out, rank, bias):
    update = Update(random(rank, WIDTH), random(out, rank), 0.7) if rank else None
    return Projection(random(out, WIDTH), random(out) if bias else None, update)


def formula(x, layer):
    """As the paper writes it."""
    found = x @ layer.weight.t()
    if layer.bias is not None:
        found = found + layer.bias
    if layer.update is not None:
        found = found + layer.update.scale * (x @ layer.update.down.t()) @ layer.update.up.t()
    return found


@pytest.mark.parametrize(
    ("shapes", "added"),
    [
        ([(5, 0, False)], False),
        ([(5, 0, False)], True),
        ([(5, 2, True)], False),
        ([(5, 2, True)], True),
        ([(5, 2, False), (3, 0, True), (4, 3, False)], False),
    ],
    ids=["plain", "plain, added to a residual", "updated", "updated, added to a residual", "three of one input"],
)
def test_outputs_and_gradients(shapes, added):
    torch.manual_seed(0)
    layers = [made(*shape) for shape in shapes]
    x, residual = random(TOKENS, WIDTH), random(TOKENS, shapes[0][0]) if added else None
    expected = [formula(x, layer) for layer in layers]
    if added:
        expected = [expected[0] + residual]
    with torch.no_grad():
        outputs, low = project(x, layers, residual)
    for one, two in zip(outputs, expected, strict=True):
        torch.testing.assert_close(one, two)
    incoming = [torch.randn_like(each) for each in outputs]
    tensors = [tensor for layer in layers for tensor in layer.tensors]
    wanted = torch.autograd.grad(expected, [x, *(each for each in tensors if each is not None)], incoming)
    with torch.no_grad():
        dx, found = project_backward(x, layers, low, incoming)
    assert [each is None for each in found] == [each is None for each in tensors]
    for one, two in zip([dx, *(each for each in found if each is not None)], wanted, strict=True):
        torch.testing.assert_close(one, two)


def test_what_is_frozen_has_no_gradient():
    layer = Projection(torch.randn(5, WIDTH), torch.randn(5), Update(torch.randn(2, WIDTH), torch.randn(5, 2), 1.0))
    x = torch.randn(TOKENS, WIDTH)
    _, low = project(x, [layer])
    _, found = project_backward(x, [layer], low, [torch.randn(TOKENS, 5)])
    assert found[:2] == [None, None]


def test_a_layer_is_read_in_the_format_of_its_input():
    layer = Projection(torch.randn(5, WIDTH))
    outputs, _ = project(torch.randn(TOKENS, WIDTH, dtype=torch.bfloat16), [layer])
    assert outputs[0].dtype is torch.bfloat16


def lora(**settings):
    return LoraLinear(nn.Linear(WIDTH, 5), "default", LoraConfig(r=2, lora_alpha=3, **settings), r=2, lora_alpha=3)


@torch.no_grad()
def test_an_adapter_is_seen():
    layer = lora()
    nn.init.normal_(layer.lora_B["default"].weight)
    x = torch.randn(TOKENS, WIDTH)
    found = projection_of(layer)
    assert found is not None
    torch.testing.assert_close(project(x, [found])[0][0], layer(x))


@torch.no_grad()
def test_an_adapter_that_is_in_the_weight_is_not_added_again():
    layer = lora()
    nn.init.normal_(layer.lora_B["default"].weight)
    x = torch.randn(TOKENS, WIDTH)
    expected = layer(x)
    layer.merge()
    found = projection_of(layer)
    assert found is not None
    assert found.update is None
    torch.testing.assert_close(project(x, [found])[0][0], expected)


def with_dropout():
    layer = lora()
    layer.lora_dropout["default"] = nn.Dropout(0.1)
    return layer


def switched_off():
    layer = lora()
    layer.enable_adapters(False)
    return layer


@pytest.mark.parametrize("make", [with_dropout, switched_off, lambda: nn.Embedding(3, 4), lambda: nn.Bilinear(2, 2, 2)])
def test_what_is_no_plain_linear_layer(make):
    assert projection_of(make()) is None

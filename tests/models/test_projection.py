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


@pytest.mark.parametrize("factor", [1, 1.25])
def test_outputs_and_gradients_behind_dropout(factor):
    """What is dropped is dropped from the updates alone; what is left grows by 1 / (1 - rate)."""
    torch.manual_seed(0)
    layers = [
        Projection(random(out, WIDTH), None, Update(random(rank, WIDTH), random(out, rank), 0.7, dropout=0.3))
        for out, rank in ((5, 2), (4, 3))
    ]
    x = random(TOKENS, WIDTH)
    with torch.no_grad():
        outputs, low = project(x, layers, factor=factor)
    mask = (low.drawn_NI >= low.least_N1).double()
    assert 0 < mask.mean() < 1
    expected = [
        factor * (x @ each.weight.t() + 0.7 * (x * mask / 0.7) @ each.update.down.t() @ each.update.up.t()) for each in layers
    ]
    for one, two in zip(outputs, expected, strict=True):
        torch.testing.assert_close(one, two)
    incoming = [torch.randn_like(each) for each in outputs]
    tensors = [tensor for each in layers for tensor in each.tensors]
    wanted = torch.autograd.grad(expected, [x, *(each for each in tensors if each is not None)], incoming)
    with torch.no_grad():
        dx, found = project_backward(x, layers, low, incoming, factor=factor)
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


@torch.no_grad()
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("added", [False, True])
def test_a_small_update_is_not_rounded_away(bias, added):
    """The update is a tenth or less of what bf16 tells apart: on average over many outputs it has to be there all the same."""
    torch.manual_seed(0)
    rows, width = 8192, 64
    x, weight = torch.randn(rows, width), torch.randn(width, width) / width**0.5
    x[:, 0] = 1
    down = torch.zeros(1, width)
    down[0, 0] = 1  # so that the update is the same number everywhere
    step = 2.0**-12
    update = Update(down, torch.full((width, 1), step), 1.0)
    offset = 8.0 * torch.randn(width) if bias else None
    residual = (8 * torch.randn(rows, width)).bfloat16() if added else None
    (with_update,), _ = project(x.bfloat16(), [Projection(weight, offset, update)], residual)
    (without,), _ = project(x.bfloat16(), [Projection(weight, offset)], residual)
    found = (with_update.float() - without.float()).mean().item()
    assert found == pytest.approx(step, rel=0.4)


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
def test_an_adapter_drops_where_it_is_trained():
    layer = lora(lora_dropout=0.25)
    nn.init.normal_(layer.lora_B["default"].weight)
    assert projection_of(layer).update.dropout == 0.25
    x = torch.randn(1, WIDTH).expand(20_000, -1)
    torch.manual_seed(0)
    found, expected = project(x, [projection_of(layer)])[0][0], layer(x)
    torch.testing.assert_close(found.mean(0), expected.mean(0), rtol=0.05, atol=0.02)
    torch.testing.assert_close(found.std(0), expected.std(0), rtol=0.05, atol=0.02)
    layer.eval()
    assert projection_of(layer).update.dropout == 0
    torch.testing.assert_close(project(x[:2], [projection_of(layer)])[0][0], layer(x[:2]))


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


def with_alpha_dropout():
    layer = lora()
    layer.lora_dropout["default"] = nn.AlphaDropout(0.1)
    return layer


def switched_off():
    layer = lora()
    layer.enable_adapters(False)
    return layer


@pytest.mark.parametrize("make", [with_alpha_dropout, switched_off, lambda: nn.Embedding(3, 4), lambda: nn.Bilinear(2, 2, 2)])
def test_what_is_no_plain_linear_layer(make):
    assert projection_of(make()) is None

"""Layers with an adapter, one Function each, against PEFT's own forward pass and autograd."""

import copy

import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora import Linear as LoraLinear
from torch import nn
from transformers.pytorch_utils import Conv1D

from llmft.config.schema import Adapter, AdapterKind
from llmft.models.adapter import add_adapter
from llmft.models.attention import checkpoint_layers, ragged
from llmft.models.fused_linear import FusedLinear, coarse_linears, fused_adapters
from llmft.models.rounding import narrow

SHAPE, OUT = (2, 7, 6), 5
BASES = {
    "linear": lambda: nn.Linear(SHAPE[-1], OUT),
    "no bias": lambda: nn.Linear(SHAPE[-1], OUT, bias=False),
    "conv1d": lambda: Conv1D(OUT, SHAPE[-1]),
}


def made(base, dropout=0.0):
    """A model of one layer with an adapter that is not at its start, where nothing would come back to A."""
    torch.manual_seed(0)
    config = LoraConfig(r=3, lora_alpha=2, lora_dropout=dropout)
    layer = LoraLinear(BASES[base](), "default", config, r=3, lora_alpha=2, fan_in_fan_out=base == "conv1d")
    layer.base_layer.requires_grad_(False)
    nn.init.normal_(layer.lora_B["default"].weight)
    return nn.Sequential(layer)


def outcome(model, x):
    """Output and gradients by what goes in and is trained."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    y = model(x)
    return y, torch.autograd.grad(y.float().sin().sum(), [x, *trained])


@pytest.mark.parametrize("base", BASES)
def test_output_and_gradients_are_those_of_peft(base, monkeypatch):
    model = made(base).double()
    x = torch.randn(SHAPE, dtype=torch.float64, requires_grad=True)
    expected = outcome(model, x)
    calls = []
    forward = FusedLinear.forward
    monkeypatch.setattr(FusedLinear, "forward", lambda *given: calls.append(1) or forward(*given))
    with fused_adapters(model):
        found = outcome(model, x)
    assert calls == [1]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(outcome(model, x), expected)
    assert calls == [1]  # behind the block PEFT computes again


@pytest.mark.parametrize("base", BASES)
def test_autocast_is_followed(base):
    """Formats are PEFT's, and so are numbers but for rounding."""
    model = made(base)
    model[0].base_layer.bfloat16()
    x = torch.randn(SHAPE, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        expected = outcome(model, x)
        with fused_adapters(model):
            found = outcome(model, x)
    assert found[0].dtype is expected[0].dtype is torch.bfloat16
    for one, two in zip(found[1], expected[1], strict=True):
        assert one.dtype is two.dtype is torch.float32
        assert float((one - two).norm() / two.norm()) < 2e-2


def test_dropout_changes_the_update_alone():
    model = made("linear", dropout=0.5).train()
    x = torch.randn(SHAPE)
    whole = model.eval()(x)
    model.train()
    torch.manual_seed(1)
    with fused_adapters(model), torch.no_grad():
        outputs = torch.stack([model(x) for _ in range(4000)])
        assert outputs.std(0).min() > 0.01
        torch.testing.assert_close(outputs.mean(0), whole, atol=0.1, rtol=0.1)
        nn.init.zeros_(model[0].lora_B["default"].weight)
        torch.testing.assert_close(model(x), model[0].base_layer(x))


def test_what_is_no_plain_update_is_left_to_peft():
    model = made("linear")
    model[0].enable_adapters(False)
    with fused_adapters(model):
        assert "forward" not in vars(model[0])
    assert "forward" not in vars(model[0])


@pytest.mark.parametrize("again", [False, True])
def test_layers_that_are_computed_again_are_left_to_peft(open_tiny, again):
    pretrained = open_tiny("gpt2")
    add_adapter(pretrained, Adapter(name=AdapterKind.lora, r=2))
    if again:
        checkpoint_layers(pretrained.model)
    with ragged(pretrained.model):
        replaced = [each for each in pretrained.model.modules() if "forward" in vars(each)]
    assert bool(replaced) is not again


class Chain(nn.Sequential):
    """Layers one after the other, none of which makes scores."""

    def get_output_embeddings(self):
        return None


def test_coarse_layers_are_rounded_by_thresholds_unless_something_stands_in():
    torch.manual_seed(0)
    model = Chain(nn.Linear(6, 5), nn.Linear(5, 4))
    for weight in model[0].parameters():
        weight.coarse = True
    x, given = torch.randn(2, 7, 6), torch.randn(2, 7, 4)
    rounded = copy.deepcopy(model)
    for name, weight in rounded[0].named_parameters():
        weight.data = narrow(getattr(model[0], name), torch.bfloat16).float()
    with torch.autocast("cpu", torch.bfloat16):
        expected = rounded(x)
        expected.backward(given.to(expected.dtype))
        with coarse_linears(model, torch.bfloat16):
            found = model(x)
            found.backward(given.to(found.dtype))
            with torch.no_grad(), coarse_linears(model, torch.bfloat16):  # as where a learner reads inside a pass
                assert torch.equal(model(x), found)
                assert torch.equal(model(x), found)
            assert torch.equal(model(x), found)
            model[0]._parameters["weight"] = nn.Parameter(model[0].weight.detach().bfloat16())  # as `stand_ins` does
            stood_in = model(x)
        nearest = model(x)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
    for (name, weight), other in zip(model[1].named_parameters(), rounded[1].parameters(), strict=True):
        torch.testing.assert_close(weight.grad, other.grad, rtol=0.02, atol=0.05, msg=name)
    torch.testing.assert_close(stood_in, nearest, rtol=0.02, atol=0.02)  # but for the bias
    assert not torch.equal(found, nearest)

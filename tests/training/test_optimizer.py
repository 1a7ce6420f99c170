"""Optimizers: what they do to a weight by hand, who decays, and going on from a saved state bit for bit."""

import json

import pytest
import torch
from safetensors.torch import load, save

from llmft.config import names
from llmft.config.bind import bind, check_options
from llmft.training.optimizer import (
    adafactor,
    adamw,
    gradient_norm,
    load_optimizer_state,
    muon,
    optimizer_state,
    parameter_groups,
    set_lr,
    sgd,
    update,
)


def test_the_norm_is_that_of_all_gradients():
    """Against a sum in float64, from which torch's own norm is off by 2.5e-4 here."""
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((4000, 2000), (20, 30), (5,))]
    weights[0].grad = torch.randn(4000, 2000)
    weights[1].grad = torch.randn(30, 20).T  # not contiguous; the third has none
    expected = sum(weight.grad.double().pow(2).sum().item() for weight in weights[:2]) ** 0.5
    assert gradient_norm(weights) == pytest.approx(expected, rel=2e-5)
    half = [torch.nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))]
    half[0].grad = torch.tensor([3.0, 4.0], dtype=torch.bfloat16)
    assert gradient_norm(half) == 5.0
    assert gradient_norm([]) == 0.0


OPTIMIZERS = {"adamw": adamw, "adafactor": adafactor, "sgd": sgd, "muon": muon}


def make_weights():
    torch.manual_seed(0)
    shapes = {"embed.weight": (7, 4), "layer.weight": (4, 6), "layer.bias": (6,), "norm.weight": (4,)}
    return [(name, torch.nn.Parameter(torch.randn(shape))) for name, shape in shapes.items()]


@pytest.mark.parametrize("max_norm", [None, 0.5, 4.0, 1e6])
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_clips_as_torch_does(make, max_norm):
    """Two updates, the first one with gradients a hundred times as large: Adam forgets no size within its moments."""
    found = []
    for ours in (True, False):
        weights = make_weights()
        optimizers = make(parameter_groups(weights, 0.1), 0.05, 0.1)
        for size in (100.0, 1.0):
            for _, weight in weights:
                weight.grad = size * torch.randn(weight.shape)
            if ours:
                update(optimizers, gradient_norm(weight for _, weight in weights), max_norm)
                continue
            torch.nn.utils.clip_grad_norm_([weight for _, weight in weights], max_norm or float("inf"))
            for optimizer in optimizers:
                optimizer.step()
        found.append(values(weights))
    for name, weight in found[1].items():
        torch.testing.assert_close(found[0][name], weight, msg=name)


def test_an_own_optimizer_finds_clipped_gradients():
    seen = []

    class Looking(torch.optim.AdamW):
        def step(self):
            seen.append(self.param_groups[0]["params"][0].grad.clone())
            super().step()

    weight = torch.nn.Parameter(torch.zeros(1, 2))
    weight.grad = torch.tensor([[30.0, 40.0]])
    update([Looking([weight], fused=True)], 50.0, 1.0)
    torch.testing.assert_close(seen, [torch.tensor([[0.6, 0.8]])])
    weight.grad = torch.tensor([[30.0, 40.0]])
    (optimizer,) = adamw([{"params": [weight], "weight_decay": 0.0}], 0.1, 0.0)
    update([optimizer], 50.0, 1.0)
    assert not hasattr(optimizer, "grad_scale")  # for the next step


def take_steps(weights, optimizers, first, last):
    for step in range(first, last):
        torch.manual_seed(100 + step)
        set_lr(optimizers, 1 / (step + 1))
        for _, weight in sorted(weights, key=lambda pair: pair[0]):
            weight.grad = torch.randn(weight.shape)
        for optimizer in optimizers:
            optimizer.step()


def values(weights):
    return {name: weight.detach().clone() for name, weight in weights}


def names_of(weights):
    return {weight: name for name, weight in weights}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_goes_on_from_a_saved_state_bit_for_bit(make):
    weights = make_weights()
    optimizers = make(parameter_groups(weights, 0.1), 0.05, 0.1)
    take_steps(weights, optimizers, 0, 4)
    tensors, plain = optimizer_state(optimizers, names_of(weights))
    # through bytes and JSON, as a checkpoint holds them
    saved = save({name: tensor.contiguous() for name, tensor in tensors.items()}), json.dumps(plain), values(weights)
    take_steps(weights, optimizers, 4, 8)
    expected = values(weights)

    again = make_weights()[::-1]  # the state goes by name, not by order
    with torch.no_grad():
        for name, weight in again:
            weight.copy_(saved[2][name])
    fresh = make(parameter_groups(again, 0.1), 0.05, 0.1)
    load_optimizer_state(fresh, names_of(again), load(saved[0]), json.loads(saved[1]))
    take_steps(again, fresh, 4, 8)
    found = values(again)
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name
    assert tensors  # there was a state to save

    forgetful = make_weights()
    with torch.no_grad():
        for name, weight in forgetful:
            weight.copy_(saved[2][name])
    take_steps(forgetful, make(parameter_groups(forgetful, 0.1), 0.05, 0.1), 4, 8)
    assert any(not torch.equal(weight, expected[name]) for name, weight in forgetful)  # and it matters


def test_a_state_of_other_weights_is_refused():
    weights = make_weights()
    optimizers = adamw(parameter_groups(weights, 0.0), 0.1, 0.0)
    take_steps(weights, optimizers, 0, 1)
    tensors, plain = optimizer_state(optimizers, names_of(weights))
    with pytest.raises(KeyError, match=r"norm\.weight"):
        load_optimizer_state(optimizers, names_of(weights[:-1]), tensors, plain)


def test_norms_and_biases_do_not_decay():
    weights = make_weights()
    decaying, others = parameter_groups(weights, 0.1)
    assert [tuple(weight.shape) for weight in decaying["params"]] == [(7, 4), (4, 6)]
    assert [tuple(weight.shape) for weight in others["params"]] == [(6,), (4,)]
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert len(parameter_groups(weights[:2], 0.1)) == 1  # no empty group


@pytest.mark.parametrize("make", [adamw, sgd, muon], ids=["adamw", "sgd", "muon"])
def test_decay_reaches_matrices_alone(make):
    """With no gradient a decaying weight shrinks to (1 - lr x decay), and the others stay."""
    weights = make_weights()
    before = values(weights)
    optimizers = make(parameter_groups(weights, 0.5), 0.1, 0.5)
    for _, weight in weights:
        weight.grad = torch.zeros_like(weight)
    for optimizer in optimizers:
        optimizer.step()
    for name, weight in weights:
        factor = 1 - 0.1 * 0.5 if weight.ndim == 2 else 1.0
        torch.testing.assert_close(weight.detach(), factor * before[name], msg=name)


def test_adamw_by_hand():
    weight = torch.nn.Parameter(torch.tensor([[2.0, -1.0]]))
    optimizers = adamw([{"params": [weight], "weight_decay": 0.1}], 0.01, 0.1, betas=[0.5, 0.75], eps=1e-8)
    expected, mean, square = torch.tensor([[2.0, -1.0]]), 0.0, 0.0
    for step, gradient in enumerate((torch.tensor([[1.0, 3.0]]), torch.tensor([[-2.0, 0.5]])), 1):
        mean = 0.5 * mean + 0.5 * gradient
        square = 0.75 * square + 0.25 * gradient**2
        expected = expected * (1 - 0.01 * 0.1)
        expected = expected - 0.01 * (mean / (1 - 0.5**step)) / ((square / (1 - 0.75**step)).sqrt() + 1e-8)
        weight.grad = gradient
        optimizers[0].step()
    torch.testing.assert_close(weight.detach(), expected)


def test_sgd_by_hand():
    weight = torch.nn.Parameter(torch.tensor([[1.0]]))
    (optimizer,) = sgd([{"params": [weight], "weight_decay": 0.0}], 0.1, 0.0, momentum=0.5)
    for gradient in (1.0, 2.0):
        weight.grad = torch.tensor([[gradient]])
        optimizer.step()
    assert weight.item() == pytest.approx(1 - 0.1 * 1 - 0.1 * (0.5 * 1 + 2))


def test_muon_takes_matrices_and_leaves_the_rest_to_adamw():
    weights = make_weights()
    optimizers = muon(parameter_groups(weights, 0.1), 0.02, 0.1, adamw_lr_factor=0.5)
    assert [type(optimizer).__name__ for optimizer in optimizers] == ["Muon", "AdamW"]
    shapes = [[weight.ndim for group in each.param_groups for weight in group["params"]] for each in optimizers]
    assert shapes == [[2, 2], [1, 1]]
    assert [group["lr"] for each in optimizers for group in each.param_groups] == [0.02, 0.01]
    set_lr(optimizers, 0.5)
    set_lr(optimizers, 0.25)  # of the peak, not of what it was
    assert [group["lr"] for each in optimizers for group in each.param_groups] == [0.005, 0.0025]
    assert [type(each).__name__ for each in muon(parameter_groups(weights[2:], 0.1), 0.02, 0.1)] == ["AdamW"]
    assert [type(each).__name__ for each in muon(parameter_groups(weights[:2], 0.1), 0.02, 0.1)] == ["Muon"]


def test_muon_update_has_the_size_of_adams():
    """0.2 x sqrt(max(rows, columns)) x an orthogonal matrix: its root mean square is 0.2 (Liu et al. 2025)."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(64, 32))
    (optimizer,) = muon([{"params": [weight], "weight_decay": 0.0}], 1.0, 0.0)
    weight.grad = 1e-3 * torch.randn(64, 32)
    optimizer.step()
    assert weight.detach().pow(2).mean().sqrt().item() == pytest.approx(0.2, rel=0.2)


def test_an_own_optimizer_by_its_dotted_name(tmp_path, monkeypatch):
    (tmp_path / "my_optimizers.py").write_text(
        "import torch\n"
        "def plain(groups, lr, weight_decay, factor=1.0):\n"
        "    return [torch.optim.SGD(groups, lr=lr * factor, weight_decay=weight_decay)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    function = bind("my_optimizers.plain", names.OPTIMIZERS, ["my_optimizers"], "optimizer.name")
    check_options(function, {"factor": 2.0}, given=3, where="optimizer.options")
    weight = torch.nn.Parameter(torch.ones(1, 1))
    (optimizer,) = function(parameter_groups([("w", weight)], 0.0), 0.25, 0.0, factor=2.0)
    weight.grad = torch.ones(1, 1)
    optimizer.step()
    assert weight.item() == 0.5


@pytest.mark.parametrize("name", names.OPTIMIZERS)
def test_built_in_names_are_bound(name):
    assert bind(name, names.OPTIMIZERS, [], "optimizer.name") is OPTIMIZERS[name]

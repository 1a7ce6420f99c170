"""Options that a signature cannot judge are refused before a model is loaded."""

import pytest
import torch

from llmft.config import schema
from llmft.errors import ConfigError
from llmft.training.bound import bind_optimizer, bind_schedule


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adamw", {"betas": 3}),
        ("adamw", {"betas": [0.9, "x"]}),
        ("adamw", {"eps": -1.0}),
        ("sgd", {"nesterov": True, "momentum": 0.0}),
        ("muon", {"ns_steps": "x"}),
    ],
)
def test_an_optimizer_that_cannot_be_made(name, options):
    with pytest.raises(ConfigError, match=f"^optimizer.name={name}: does not work with {next(iter(options))}=.*: .*Correct"):
        bind_optimizer(schema.Optimizer(name=name, options=options), [])


@pytest.mark.parametrize("options", [{"floor": "abc"}, {"floor": float("nan")}, {"floor": -1.0}])
def test_a_schedule_without_a_factor(options):
    with pytest.raises(ConfigError, match=r"^schedule\.name=cosine: does not work with floor=.*: .*Correct"):
        bind_schedule(schema.Schedule(name="cosine", options=options), [])


@pytest.mark.parametrize("name", ["adamw", "adafactor", "sgd", "muon"])
def test_every_optimizer_by_its_defaults(name):
    make = bind_optimizer(schema.Optimizer(name=name, lr=0.5), [])
    weight = torch.nn.Parameter(torch.ones(3, 2))
    [optimizer] = make([{"params": [weight], "weight_decay": 0.0}])
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_a_schedule_with_its_options():
    assert bind_schedule(schema.Schedule(name="linear", options={"floor": 0.5}), [])(0.5) == 0.75


def test_an_own_optimizer_may_be_one_or_several(tmp_path, monkeypatch):
    code = "from torch.optim import SGD\ndef one(params, lr, decay): return SGD(params, lr)\ndef none(params, lr, decay): return 3\n"
    (tmp_path / "own_optimizer.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    make = bind_optimizer(schema.Optimizer(name="own_optimizer.one"), ["own_optimizer"])
    assert [type(each) for each in make([{"params": [torch.nn.Parameter(torch.ones(1))]}])] == [torch.optim.SGD]
    with pytest.raises(ConfigError, match=r"own_optimizer\.none: does not work with no options: 'int' object has no attribute"):
        bind_optimizer(schema.Optimizer(name="own_optimizer.none"), ["own_optimizer"])

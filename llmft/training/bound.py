"""Optimizer and schedule bound to the functions they name, and tried once on nothing, before any model is loaded."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from llmft.config import names, schema
from llmft.config.bind import bind, check_options, try_options
from llmft.training.optimizer import Groups, parameter_groups
from llmft.training.schedule import Schedule

MakeOptimizers = Callable[[Groups], list[Optimizer]]


def bind_optimizer(settings: schema.Optimizer, plugins: Sequence[str]) -> MakeOptimizers:
    """Return the function that makes the optimizers of the parameter groups. Raises ConfigError."""
    function = bind(settings.name, names.OPTIMIZERS, plugins, "optimizer.name")
    check_options(function, settings.options, given=3, where="optimizer.options")

    def make(groups: Groups) -> list[Optimizer]:
        made: Optimizer | list[Optimizer] = function(groups, settings.lr, settings.weight_decay, **settings.options)
        return made if isinstance(made, list) else [made]

    weights = [("matrix", Parameter(torch.ones(2, 2))), ("vector", Parameter(torch.ones(2)))]
    with try_options(f"optimizer.name={settings.name}", settings.options):
        for optimizer in make(parameter_groups(weights, settings.weight_decay)):
            for group in optimizer.param_groups:
                for weight in group["params"]:
                    weight.grad = torch.ones_like(weight)
            optimizer.step()
    return make


def bind_schedule(settings: schema.Schedule, plugins: Sequence[str]) -> Schedule:
    """Return the function from progress to the factor of the learning rate. Raises ConfigError."""
    function = bind(settings.name, names.SCHEDULES, plugins, "schedule.name")
    check_options(function, settings.options, given=1, where="schedule.options")
    factor = partial(function, **settings.options)
    with try_options(f"schedule.name={settings.name}", settings.options):
        wrong = [value for value in map(factor, (0.0, 0.5, 0.999)) if not (math.isfinite(value) and value >= 0)]
        if wrong:
            raise ValueError(f"the factor of the learning rate would be {wrong[0]:g}")
    return factor

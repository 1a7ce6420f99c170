"""A run's settings as files: config.yaml, and rerun.yaml that repeats the run."""

from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import yaml

from llmft.config.schema import EvalRun, PredictRun, TrainRun

# Where a run writes and how it goes on says nothing about what it computes.
NOT_IN_FINGERPRINT = ("output_root", "output_dir", "gate")


def to_values(settings: Any) -> Any:
    """Return dataclasses as dictionaries and enums as their names, at any depth."""
    if is_dataclass(settings):
        return {field.name: to_values(getattr(settings, field.name)) for field in fields(settings)}
    if isinstance(settings, Enum):
        return settings.name
    if isinstance(settings, dict):
        return {key: to_values(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [to_values(value) for value in settings]
    return settings


def config_yaml(run: TrainRun | EvalRun | PredictRun) -> str:
    """Every resolved setting."""
    return yaml.safe_dump(to_values(run), sort_keys=False, allow_unicode=True)


def rerun_yaml(run: TrainRun) -> str:
    """A primary config with every setting of `run` but the folder it wrote to."""
    values = to_values(run) | {"output_dir": None}
    head = "# Repeats this run in a new directory: llmft train --config-dir THIS_FOLDER --config-name rerun\n"
    return head + yaml.safe_dump({"defaults": ["schema/train", "_self_"], **values}, sort_keys=False, allow_unicode=True)


def fingerprinted(run: TrainRun) -> dict[str, Any]:
    """Return the settings that decide what a run computes."""
    values = {key: value for key, value in to_values(run).items() if key not in NOT_IN_FINGERPRINT}
    values["training"] = {key: value for key, value in values["training"].items() if key not in ("resume", "log_every", "keep")}
    return values

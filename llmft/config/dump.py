"""A run's settings as files: config.yaml, and rerun.yaml that repeats the run."""

import re
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import yaml

from llmft.config.schema import EvalRun, PredictRun, TrainRun

# Where a run writes, how it goes on and in what portions says nothing about what it computes.
NOT_IN_FINGERPRINT = ("output_root", "output_dir", "gate")
NOT_TRAINING = ("resume", "log_every", "keep", "async_save", "micro_tokens")

# A repeated run gets a folder of its own, and whom to trust is not for a file in a run directory to say.
NOT_REPEATED = ("output_dir", "plugins")
NOT_WRITTEN = "trust_remote_code"
"""The one setting that no file may hold: to run a stranger's code is typed anew each time."""


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
    """Every resolved setting but model.trust_remote_code."""
    values = to_values(run)
    del values["model"][NOT_WRITTEN]
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def rerun_yaml(run: TrainRun) -> str:
    """A primary config with every setting of `run` but the folder it wrote to and the packages it trusted."""
    values = {key: value for key, value in to_values(run).items() if key not in NOT_REPEATED}
    del values["model"][NOT_WRITTEN]
    head = "# Repeats this run in a new directory: llmft train --config-dir THIS_FOLDER --config-name rerun\n"
    return head + yaml.safe_dump(
        {"defaults": ["schema/train", "_self_"], **escape(values)}, sort_keys=False, allow_unicode=True
    )


def escape(value: Any) -> Any:
    """Return values that OmegaConf takes as they are: a ${...} in a text is literal."""
    if isinstance(value, dict):
        return {key: escape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [escape(inner) for inner in value]
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", value)
    return value


def fingerprinted(run: TrainRun) -> dict[str, Any]:
    """Return the settings that decide what a run computes; the number of threads changes no more than rounding."""
    values = {key: value for key, value in to_values(run).items() if key not in NOT_IN_FINGERPRINT}
    values["hardware"] = {key: value for key, value in values["hardware"].items() if key != "threads"}
    # what the files are is in the fingerprint by itself
    values["model"] = {key: value for key, value in values["model"].items() if key != "sha256"}
    values["training"] = {key: value for key, value in values["training"].items() if key not in NOT_TRAINING}
    return values

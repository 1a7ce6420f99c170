"""The configuration of a run as text: config.yaml, its values, and rerun.yaml, which repeats the run."""

import dataclasses
import re
from enum import Enum
from typing import Any

import yaml

from llmft.config.schema import EvalRun, PredictRun, TrainRun

ELSEWHERE = "output_dir", "output_root", "plugins"
"""Not in rerun.yaml: a repeated run goes into a directory of its own, and whom to trust is said anew."""


def as_values(run: TrainRun | EvalRun | PredictRun) -> dict[str, Any]:
    """The settings as plain values, enums by their names, ready for YAML or JSON."""
    values = _plain(dataclasses.asdict(run))
    assert isinstance(values, dict)
    return values


def config_yaml(run: TrainRun | EvalRun | PredictRun) -> str:
    """Text of config.yaml: every value of the run, nothing left to resolve."""
    return yaml.safe_dump(as_values(run), sort_keys=False, allow_unicode=True, width=120)


def rerun_yaml(run: TrainRun) -> str:
    """Text of rerun.yaml: `llmft train --config-dir RUN --config-name rerun` runs it again."""
    values = {name: value for name, value in as_values(run).items() if name not in ELSEWHERE}
    head = "# llmft train --config-dir RUN --config-name rerun\n# Repeats the run in whose directory this file is.\n"
    body = {"defaults": ["schema/train", "_self_"], **escape(values)}
    return head + yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=120)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value.name if isinstance(value, Enum) else value


def escape(value: Any) -> Any:
    """Values that OmegaConf shall take as they are: a ${...} in a text is literal."""
    if isinstance(value, dict):
        return {name: escape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [escape(inner) for inner in value]
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", value)
    return value

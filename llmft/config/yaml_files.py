"""YAML files checked key by key against the schema, so that a mistake is reported with file and line."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from llmft.config import explain, hydra_keys, settings, sources


def check(path: Path, package: str, root: type, command: str) -> list[str]:
    """What is wrong in a YAML file, one sentence each, starting with file:line.

    package: the section that the file fills ("task"), or "" for the whole configuration.
    Raises yaml.MarkedYAMLError if the file is not YAML.
    """
    if path.is_relative_to(sources.built_in() / "hydra"):
        return []  # the built-in search sweeper is the one place where a configuration names code
    node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    if package.split(".")[0] == "experiment":
        return [f"{path}:1: {explain.NO_PACKAGE}"]
    if node is None:
        return []
    if not isinstance(node, yaml.MappingNode):
        return [f"{path}:1: found no settings, expected name: value pairs. See llmft {command} --cfg job for the form."]
    content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert isinstance(content, dict), content
    content.pop("defaults", None)
    return [f"{path}:{line}: {problem}" for line, problem in _walk(node, content, package, root, command)]


def _walk(node: yaml.MappingNode, content: dict[Any, Any], section: str, root: type, command: str) -> Iterator[tuple[int, str]]:
    """Line and sentence of each wrong key or value."""
    for name_node, value_node in node.value:
        name = str(name_node.value)
        if name not in content:
            continue  # the defaults list, or a merge key
        value = content[name]
        key = f"{section}.{name}" if section else name
        in_hydra = key.split(".")[0] == "hydra"
        deeper = in_hydra or settings.is_section(root, key) or settings.find_type(root, f"{key}.x") is not None
        if deeper and value and isinstance(value, dict) and isinstance(value_node, yaml.MappingNode):
            yield from _walk(value_node, value, key, root, command)
        else:
            yield from ((name_node.start_mark.line + 1, text) for text in _check_leaf(key, value, root, command))


def _check_leaf(key: str, value: Any, root: type, command: str) -> list[str]:
    if key.split(".")[0] != "hydra":
        return explain.setting(key, value, root, command)
    return hydra_keys.check(key, "a YAML file") or [f"{key}: {text}" for text in hydra_keys.check_plain(value)]


def check_recorded(path: Path) -> list[str]:
    """Refuse what a file in a run directory must not bring: it decides neither whom to trust nor what else is read."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    problems = []
    if any(part not in ("schema/train", "_self_") for part in content.get("defaults", [])):
        problems.append("found a defaults list of its own")
    problems += [f"found {name}" for name in ("plugins", "hydra") if content.get(name)]
    if any(re.search(r"(?<!\\)(\\\\)*\$\{", text) for text in _texts(content)):
        problems.append("found a value to be resolved, ${...}")
    advice = "a run directory holds values only. If you trust the file, copy it into a folder of your own."
    return [f"{path}: {problem}; {advice}" for problem in problems]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield str(name)
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, str):
        yield value

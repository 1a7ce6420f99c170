"""YAML files checked key by key against the schema, so that a mistake is reported with file and line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from llmft.config import explain, hydra_keys, settings


def check(path: Path, package: str, root: type, command: str) -> list[str]:
    """What is wrong in a YAML file, one sentence each, starting with file:line.

    package: the section that the file fills ("task"), or "" for the whole configuration.
    Raises yaml.MarkedYAMLError if the file is not YAML.
    """
    node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
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
        if deeper and isinstance(value, dict) and isinstance(value_node, yaml.MappingNode):
            yield from _walk(value_node, value, key, root, command)
        else:
            yield from ((name_node.start_mark.line + 1, text) for text in _check_leaf(key, value, root, command))


def _check_leaf(key: str, value: Any, root: type, command: str) -> list[str]:
    if key.split(".")[0] != "hydra":
        return explain.setting(key, value, root, command)
    return hydra_keys.check(key, "a YAML file") or [f"{key}: {text}" for text in hydra_keys.check_plain(value)]

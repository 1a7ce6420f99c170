"""YAML files checked key by key against the schema, so that a mistake is reported with file and line."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_yaml_loader

from llmft.config import explain, hydra_keys, settings, sources
from llmft.errors import ConfigError

MOST_BYTES = 1 << 20
MOST_VALUES = 100_000
MOST_DEPTH = 50
"""No settings are larger; what is takes Python's YAML reader minutes, or all memory."""

RUN_FILES = "status.json", "sweep.json", "results.json", "environment.json", "config.json", "adapter_config.json"
"""What tells a run directory, or a model folder, from a folder of settings."""

TYPED_ALONE = "model.trust_remote_code"
"""The one setting that no file may hold."""

_TOO_DEEP = f"nested in itself, or deeper than {MOST_DEPTH} levels. Settings are a few levels deep."


def read(path: Path) -> yaml.MappingNode | None:
    """The nodes of a YAML file, None if it is empty; nothing is made of them yet, so that every file is safe to look at.

    Raises yaml.MarkedYAMLError if the file is not YAML, UnicodeDecodeError if it is not UTF-8, ConfigError if it holds no
    settings, cannot be read, or would fill the memory: aliases of aliases double a few lines into billions of values.
    """
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise ConfigError(
                f"{path}: {size:,} bytes, expected settings, at most {MOST_BYTES:,}. Rows of data go in a data file."
            )
        with path.open(encoding="utf-8") as file:
            node = yaml.compose(file, Loader=yaml.SafeLoader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}. Correct the name or the permissions.") from error
    except yaml.reader.ReaderError as error:
        raise ConfigError(
            f"{path}: not valid YAML: {error.reason} (U+{error.character:04X}). Take that character out."
        ) from error
    except RecursionError as error:
        raise ConfigError(f"{path}: {_TOO_DEEP}") from error
    if node is None:
        return None
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{path}:1: found no settings, expected name: value pairs. See llmft train --cfg job for the form.")
    if problem := _too_much(node):
        raise ConfigError(f"{path}:{node.start_mark.line + 1}: {problem}")
    return node


def _too_much(top: yaml.Node) -> str | None:
    """Say that a file nests too deep, in itself, or stands for too many values once its aliases are replaced."""
    values: dict[int, int] = {}  # of finished nodes, with all below them
    above: dict[int, None] = {}  # nodes whose children are being counted

    def count(node: yaml.Node) -> int:
        if id(node) in above or len(above) > MOST_DEPTH:
            raise RecursionError
        if id(node) not in values:
            above[id(node)] = None
            pairs = node.value if isinstance(node, yaml.CollectionNode) else []
            inner = [part for pair in pairs for part in (pair if isinstance(pair, tuple) else (pair,))]
            values[id(node)] = 1 + sum(count(each) for each in inner)
            del above[id(node)]
        return values[id(node)]

    try:
        total = count(top)
    except RecursionError:
        return _TOO_DEEP
    return f"{total:,} values once its aliases are replaced, expected at most {MOST_VALUES:,}." if total > MOST_VALUES else None


def check(path: Path, package: str, root: type, command: str) -> list[str]:
    """What is wrong in a YAML file, one sentence each, starting with file:line.

    package: the section that the file fills ("task"), or "" for the whole configuration. Raises as `read`.
    """
    if path.is_relative_to(sources.built_in() / "hydra"):
        return []  # the built-in search sweeper is the one place where a configuration names code
    node = read(path)
    if package.split(".")[0] == "experiment":
        return [f"{path}:1: {explain.NO_PACKAGE}"]
    if node is None:
        return []
    with path.open(encoding="utf-8") as file:
        content = yaml.load(file, get_yaml_loader())  # as OmegaConf reads it, without a look at what stands in ${...}
    content.pop("defaults", None)
    return [f"{path}:{line}: {problem}" for line, problem in _walk(node, 1, content, package, root, command)]


def check_hydra(path: Path, content: Any) -> list[str]:
    """Refuse what Hydra itself would act on while it still reads files: a search path imports packages."""
    found = content.get("hydra") if isinstance(content, dict) else None
    names = found if isinstance(found, dict) else ()
    return [
        f"{path}: {text}" for name in names if name == "searchpath" for text in hydra_keys.check(f"hydra.{name}", "a YAML file")
    ]


def _walk(
    node: yaml.Node | None, line: int, content: dict[Any, Any], section: str, root: type, command: str
) -> Iterator[tuple[int, str]]:
    """Line and sentence of each wrong key or value. What a merge key (<<) brought has no node here, and the line above."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    nodes = {str(name.value): (name.start_mark.line + 1, inner) for name, inner in pairs}
    for name, value in content.items():
        at, inner = nodes.get(str(name), (line, None))
        key = f"{section}.{name}" if section else str(name)
        in_hydra = key.split(".")[0] == "hydra"
        deeper = in_hydra or settings.is_section(root, key) or settings.find_type(root, f"{key}.x") is not None
        if deeper and value and isinstance(value, dict):
            yield from _walk(inner, at, value, key, root, command)
        else:
            yield from ((at, text) for text in _check_leaf(key, value, root, command))


def _check_leaf(key: str, value: Any, root: type, command: str) -> list[str]:
    if key == TYPED_ALONE and value is not False:
        return [
            f"{key}={value}: cannot be set from a file, only on the command line: whoever starts the command trusts the code."
        ]
    if key.split(".")[0] != "hydra":
        return explain.setting(key, value, root, command)
    return hydra_keys.check(key, "a YAML file") or [f"{key}: {text}" for text in hydra_keys.check_plain(value)]


def is_recorded(path: Path, folders: list[Path]) -> bool:
    """True for a file in a run directory or a model folder, which may have come from anybody.

    folders: where YAML is looked for; a folder of settings that lies right in a run directory came with it.
    """
    for folder in (folder for folder in folders if path.is_relative_to(folder)):
        inside = [each for each in path.parents if each.is_relative_to(folder)]
        if any((each / name).is_file() for each in inside for name in RUN_FILES):
            return True
        if (folder.parent / RUN_FILES[0]).is_file():
            return True
    return False


def check_recorded(path: Path) -> list[str]:
    """Refuse what a file in a run directory must not bring: it decides neither whom to trust nor what else is read."""
    read(path)
    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    problems = []
    if any(part not in ("schema/train", "_self_") for part in content.get("defaults", None) or []):
        problems.append("found a defaults list of its own")
    problems += [f"found {name}" for name in ("plugins", "hydra", "output_dir") if content.get(name)]
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

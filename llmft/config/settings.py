"""What the schema knows about a key: is there such a setting, of which type, with which neighbours."""

import functools
import types
from collections.abc import Iterator
from dataclasses import is_dataclass
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

DATA = "task.data.train", "task.data.validation", "task.data.test"
"""Settings that take one file, a list of files, or {column: file, ...}."""
NAMES = *DATA, "adapter.target_modules"
"""Settings that take one name or a list of names; omegaconf has no type for that, so they are Any in the schema."""


_hints = functools.cache(get_type_hints)


def find_type(root: type, key: str) -> Any:
    """The type of the setting `key` ("optimizer.lr") below `root`; None if there is no such setting.

    Below a setting that holds name: value pairs every name is one: gate.min.rougeL is a float.
    """
    kind: Any = root
    in_pairs = False
    for part in key.split("."):
        kind = without_null(kind)
        if isinstance(kind, type) and is_dataclass(kind):
            kind = _hints(kind).get(part)
        elif get_origin(kind) is dict:
            kind, in_pairs = get_args(kind)[1], True
        elif kind is not Any or not in_pairs:
            return None
        if kind is None or not part:
            return None
    return kind


def without_null(kind: Any) -> Any:
    """str for `str | None`."""
    if get_origin(kind) in (Union, types.UnionType):
        return next(part for part in get_args(kind) if part is not type(None))
    return kind


def takes_null(kind: Any) -> bool:
    """True if null is an allowed value."""
    return kind is Any or type(None) in get_args(kind)


def is_entry(root: type, key: str) -> bool:
    """True for a key below a setting that holds name: value pairs, such as gate.min.rougeL or task.metrics.bleu.tokenize."""
    parts = key.split(".")
    above = [find_type(root, ".".join(parts[:depth])) for depth in range(1, len(parts))]
    return find_type(root, key) is not None and any(get_origin(kind) is dict for kind in above)


def keys(root: type, prefix: str = "") -> Iterator[str]:
    """Every setting below `root`, sections not included: task.name, task.version, ..."""
    for name, kind in _hints(root).items():
        if is_dataclass(kind):
            yield from keys(kind, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            yield prefix + name


def describe(kind: Any) -> str:
    """What a setting of this type takes, for "expected ..."."""
    plain = without_null(kind)
    if isinstance(plain, type) and issubclass(plain, Enum):
        text = "one of " + ", ".join(plain.__members__)
    elif isinstance(plain, type) and is_dataclass(plain):
        text = "the settings " + ", ".join(_hints(plain))
    elif get_origin(plain) is dict:
        text = f"name: value pairs, each value {describe(get_args(plain)[1])}"
    elif get_origin(plain) is list:
        text = "a list such as [a, b]"
    else:
        text = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(plain, "a value")
    return text + (" or null" if takes_null(kind) and plain is not Any else "")


def check_value(root: type, key: str, value: Any) -> str | None:
    """What is wrong with the value of an existing setting, as "found ..., expected ..."; None if it fits.

    Values with ${...} pass: what they stand for is checked once they are resolved. A whole section is not a value.
    """
    kind = find_type(root, key)
    if isinstance(value, str) and is_section(root, key):
        return f"found {show(value)}, expected {describe(kind)}"
    if isinstance(value, str) and "${" in value:
        return None
    if key in NAMES:
        names = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else [value]
        fits = value is None or (bool(names) and all(isinstance(name, str) and name for name in names))
        fits = fits and (key in DATA or not (value is None or isinstance(value, dict)))
        parallel = ", or parallel text files as {column: file, ...}" if key in DATA else ""
        return None if fits else f"found {show(value)}, expected a name or a list of names such as [a, b]{parallel}"
    plain = without_null(kind)
    if isinstance(value, bool) and plain in (int, float):  # omegaconf takes true for 1
        return f"found {show(value)}, expected {describe(kind)}"
    if isinstance(value, bool | float) and plain is str:  # YAML reads yes as true, and the commit 12e4567 as a number
        return f"found {show(value)}, expected {describe(kind)}: put it in quotes"
    if _fits(value, plain) or (value is None and takes_null(kind)):
        return None  # without omegaconf, which takes longer over one value than over reading the file
    try:
        owner, name = _owner(root, key)
        OmegaConf.update(OmegaConf.structured(owner), name, value, force_add=is_entry(root, key))
    except (OmegaConfBaseException, ValueError, TypeError):
        quotes = ": put it in quotes" if isinstance(value, bool) and "off" in describe(kind) else ""  # YAML reads off as false
        return f"found {show(value)}, expected {describe(kind)}{quotes}"
    return None


def _fits(value: Any, plain: Any) -> bool:
    """True if a value is of its setting's type as it stands; omegaconf knows what else can be made one."""
    if isinstance(plain, type) and issubclass(plain, Enum):
        return isinstance(value, str) and value in plain.__members__
    return type(value) is plain and plain in (int, float, bool, str)


def show(value: Any) -> str:
    """A value as a user would write it."""
    return {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else repr(value)


def is_section(root: type, key: str) -> bool:
    """True for a key that holds settings itself, such as optimizer or task.data."""
    return is_dataclass(without_null(find_type(root, key)))


def _owner(root: type, key: str) -> tuple[type, str]:
    """The section that a key belongs to and the key's name in it: much quicker to try a value on than the whole."""
    parts = key.split(".")
    for depth in range(len(parts) - 1, 0, -1):
        section = ".".join(parts[:depth])
        if is_section(root, section):
            return without_null(find_type(root, section)), ".".join(parts[depth:])
    return root, key

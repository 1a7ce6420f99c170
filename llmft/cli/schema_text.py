"""Settings, defaults and meanings read from the source of config/schema.py, without importing it: that would take too long."""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PATH = Path(__file__).resolve().parent.parent / "config" / "schema.py"
ROOTS = {"train": "TrainRun", "eval": "EvalRun", "predict": "PredictRun"}


@dataclass(frozen=True)
class Setting:
    """One setting as the help shows it."""

    key: str
    default: str
    meaning: str
    choices: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """The settings of one dataclass."""

    name: str
    meaning: str
    settings: tuple[Setting, ...]


def sections(command: str) -> list[Section]:
    """The sections of a command in the order of the schema; the settings that belong to none come first, under ""."""
    classes = {node.name: node for node in _module().body if isinstance(node, ast.ClassDef)}
    found: list[Section] = []
    _collect(classes, ROOTS[command], "", found)
    return found


@cache
def _module() -> ast.Module:
    return ast.parse(PATH.read_text(encoding="utf-8"))


def _collect(classes: dict[str, ast.ClassDef], class_name: str, prefix: str, found: list[Section]) -> None:
    """Add the section of a class, then those of the classes in it."""
    body = classes[class_name].body
    settings, inner = [], []
    for place, node in enumerate(body):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        key, kind = prefix + node.target.id, ast.unparse(node.annotation)
        if kind in classes and not _members(classes[kind]):
            inner.append((kind, f"{key}."))
            continue
        choices = _members(classes[kind]) if kind in classes else ()
        settings.append(Setting(key, _default(node.value), _text(body[place + 1 : place + 2]), choices))
    found.append(Section(prefix.rstrip("."), _text(body[:1]), tuple(settings)))
    for kind, deeper in inner:
        _collect(classes, kind, deeper, found)


def _members(node: ast.ClassDef) -> tuple[str, ...]:
    """The names of an enum; empty for a dataclass."""
    if not any(isinstance(base, ast.Name) and base.id == "Enum" for base in node.bases):
        return ()
    return tuple(
        line.targets[0].id for line in node.body if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name)
    )


def _text(lines: list[ast.stmt]) -> str:
    """The docstring that the lines begin with."""
    if lines and isinstance(lines[0], ast.Expr) and isinstance(lines[0].value, ast.Constant):
        return str(lines[0].value.value)
    return ""


def _default(value: ast.expr | None) -> str:
    """A default as it is written on a command line."""
    match value:
        case ast.Constant(value=None):
            return "null"
        case ast.Constant(value=bool() as truth):
            return str(truth).lower()
        case ast.Constant(value=constant):
            return str(constant)
        case ast.Attribute(attr=name):
            return name
        case ast.Name(id="MISSING"):
            return "(needed)"
        case ast.Call():
            return "[]" if "list" in ast.unparse(value) else "{}"
    raise AssertionError(f"schema.py has a default that the help cannot show: {ast.dump(value) if value else 'none'}")

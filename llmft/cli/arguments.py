"""The words of a command line: flags in any place, and settings quoted so that Hydra's grammar reads them as meant."""

import argparse
import re
from dataclasses import dataclass, is_dataclass
from typing import Any, NoReturn, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString, ValueType
from hydra.errors import HydraException

from llmft.config import settings
from llmft.errors import ConfigError

INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")

MOST_CHARACTERS = 20_000
"""Of one setting; Hydra's parser takes seconds for more."""


@dataclass(frozen=True)
class Arguments:
    """A command line, taken apart."""

    settings: list[str]
    multirun: bool
    cfg: str | None
    package: str | None
    resolve: bool
    info: str | None
    config_dir: str | None
    config_name: str | None

    def flags(self) -> list[str]:
        """What Hydra has to be told. Not --config-dir: that folder is among the user's folders, which are searched anyway."""
        found = [f"--{name}={value}" for name in ("cfg", "package", "info") if (value := getattr(self, name)) is not None]
        found += [f"--{name}" for name in ("multirun", "resolve") if getattr(self, name)]
        return found + ([f"--config-name={self.config_name}"] if self.config_name else [])


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}. llmft {self.prog} --help shows the flags.")


def parse(words: list[str], command: str) -> Arguments:
    """Take a command line apart; Hydra itself wants all flags before, or all behind the settings.

    Raises ConfigError for an unknown flag, and for one whose value is missing.
    """
    parser = _Parser(prog=command, add_help=False, allow_abbrev=False)
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
    parser.add_argument("--package", "-p")
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("--info", "-i", choices=INFO)
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--config-name", "-cn")
    parser.add_argument("settings", nargs="*")
    for place, word in enumerate(words):
        if word in ("--info", "-i") and (words[place + 1 :] or [""])[0] not in INFO:
            words = [*words[:place], "--info=all", *words[place + 1 :]]
    known, unknown = parser.parse_known_intermixed_args(words)
    if long := [word for word in known.settings if len(word) > MOST_CHARACTERS]:
        name, size = long[0].partition("=")[0][:100], len(long[0])
        raise ConfigError(f"{name}: {size:,} characters, expected at most {MOST_CHARACTERS:,}. Put it into a YAML file.")
    if unknown:
        raise ConfigError(*(_unknown_flag(word, command) for word in unknown))
    if known.resolve and known.cfg is None:
        raise ConfigError("--resolve: only together with --cfg. Add --cfg job.")
    if known.multirun and known.cfg:
        raise ConfigError("--multirun and --cfg: only one of them at a time. Leave one out.")
    return Arguments(**vars(known))


def _unknown_flag(word: str, command: str) -> str:
    name, _, value = word.lstrip("-").partition("=")
    return (
        f"{word}: llmft {command} has no such flag. Settings are written without dashes: {name.replace('-', '_')}={value or '...'}"
        f" (flags: llmft {command} --help)"
    )


def quote(word: str, root: type, multirun: bool) -> str:
    """A setting as Hydra's grammar has to get it, going by the type that the schema gives the key.

    Text stays text, whatever it looks like: task.source={article}, model.revision=12e4567, task.prompt="a, b". Exceptions are
    null, text that is quoted already, and with --multirun a list of words a,b. Entries of name: value pairs get ++, because
    Hydra would ask for + or ++ depending on whether the YAML has them.
    """
    match = re.fullmatch(r"(\+\+|\+)?([^=~+]+)=(.*)", word, re.DOTALL)
    if match is None:
        return word
    prefix, key, value = match.groups()
    kind = settings.without_null(settings.find_type(root, key))
    if kind is None or is_dataclass(kind):
        always_there = kind is not None or key == "experiment"
        return f"{key}={value}" if prefix == "+" and always_there else word
    prefix = "++" if settings.is_entry(root, key) or get_origin(kind) is dict else "" if prefix == "+" else prefix or ""
    if kind is str:
        value = _text(value, multirun)
    elif get_origin(kind) is list or key in settings.NAMES:
        value = _names(value, multirun)
    elif kind is Any and _parse(value) is None and value[:1] not in ("[", "{"):
        value = _quoted(value)
    return f"{prefix}{key}={value}"


def _text(value: str, multirun: bool) -> str:
    parsed = _parse(value)
    if value == "" or value.lower() == "null" or isinstance(parsed and parsed._value, QuotedString):
        return value
    if parsed and isinstance(parsed._value, str) and parsed._value == value:
        return value  # easier to read in the table of a sweep
    if multirun:
        if parsed and parsed.is_sweep_override() and parsed.value_type != ValueType.SIMPLE_CHOICE_SWEEP:
            return value  # choice(...), range(...), interval(...)
        pieces = split(value)
        if len(pieces) > 1 and all(re.fullmatch(r"\S+|'.*'|\".*\"|\{.*\}", piece) for piece in pieces):
            return ",".join(_text(piece, False) for piece in pieces)
    return _quoted(value)


def _names(value: str, multirun: bool) -> str:
    """One name, a list of names, or {column: file, ...}; with --multirun, several of either."""
    pieces = split(value)
    if multirun and len(pieces) > 1:
        return ",".join(_names(piece, False) for piece in pieces)
    if value.startswith("[") and value.endswith("]") and len(pieces) == 1:
        inside = value[1:-1]
        return f"[{','.join(_text(piece, False) for piece in split(inside))}]" if inside.strip() else value
    if value.startswith("{") and len(pieces) == 1 and (files := _files(value)):
        return files
    return _text(value, multirun)


def _files(value: str) -> str | None:
    """{column: file, ...} with every file as a text; None if it is something else, such as a file named {a}."""
    pairs = [re.fullmatch(r"([^:'\"]+?)\s*:\s*(.+)", piece, re.DOTALL) for piece in split(value[1:-1])]
    if not value.endswith("}") or not all(pairs):
        return None
    # what is nested is no file, and has to be seen to be refused
    files = [(pair[1], pair[2] if pair[2][0] in "[{" else _text(pair[2], False)) for pair in pairs if pair]
    return "{" + ", ".join(f"{column}: {file}" for column, file in files) + "}"


def split(value: str) -> list[str]:
    """Cut at the commas that stand outside brackets and quotes; white space around the pieces goes."""
    pieces, depth, inside = [""], 0, ""
    for char in value:
        if inside:
            inside = "" if char == inside else inside
        elif char in "'\"":
            inside = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        if char == "," and not inside and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += char
    return [piece.strip() for piece in pieces] if depth == 0 and not inside else [value]


def _parse(value: str) -> Any:
    try:
        return OverridesParser.create().parse_override(f"key={value}")
    except (HydraException, ValueError, TypeError, RecursionError):  # a number of more digits than Python converts, and such
        return None


def _quoted(value: str) -> str:
    return QuotedString(value, Quote.single).with_quotes()

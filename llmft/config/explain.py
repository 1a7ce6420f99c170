"""Wrong keys, choices and values as one sentence each, with what was probably meant."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from llmft.config import aliases, hydra_keys, settings

NO_PACKAGE = "an experiment is settings from the top. Make its first line: # @package _global_"
"""Hydra puts a file under the name of its folder where its first line does not say otherwise."""


def suggest(word: str, words: Iterable[str]) -> str:
    """ " Did you mean X?" for the nearest of `words`, or an empty string."""
    near = get_close_matches(word, list(words), 3, 0.6)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def setting(key: str, value: Any, root: type, command: str) -> list[str]:
    """What is wrong with `key: value`, one sentence each: no such setting, a wrong value, code where a value belongs."""
    if settings.find_type(root, key) is None:
        return [unknown_key(key, root, command)]
    if isinstance(value, dict) and settings.is_section(root, key):
        return [text for name, inner in value.items() for text in setting(f"{key}.{name}", inner, root, command)]
    code = hydra_keys.check_plain([dict.fromkeys(key.split(".")), value])
    wrong = [] if code else [settings.check_value(root, key, value)]
    return [f"{key}: {text}" for text in [*code, *wrong] if text]


def unknown_key(key: str, root: type, command: str) -> str:
    """Say that the command has no setting `key`, and which one was probably meant."""
    section, _, last = key.rpartition(".")
    text = f"llmft {command} has no setting {key}."
    if last in aliases.EXPLAINED:
        return f"{text} {aliases.EXPLAINED[last]}"
    here = aliases.HERE.get(last)
    if here and settings.find_type(root, here.split("=")[0]) is not None:
        return f"{text} Here it is called {here}."
    known = list(settings.keys(root))
    same = [name for name in known if name.rpartition(".")[2] == last]
    if same and not section:
        return f"{text} It belongs to a section: {' or '.join(same[:3])}."
    beside = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == section}
    anywhere = {name.rpartition(".")[2]: name for name in known}
    near = [beside[name] for name in get_close_matches(last, beside, 1, 0.7)] or same or get_close_matches(key, known, 1, 0.7)
    near = near or [anywhere[name] for name in get_close_matches(last, anywhere, 1, 0.8)]
    return f"{text} Did you mean {' or '.join(near[:3])}?" if near else f"{text} All of them: llmft {command} --help"


def unknown_choice(group: str, choice: str, choices: Iterable[str]) -> str:
    """Say that `group` has no such choice."""
    known = sorted(choices)
    return f"{group}={choice}: there is no such {group}.{suggest(choice, known)} Choices: {', '.join(known)}"


def hydra_error(error: Exception, command: str) -> str:
    """One sentence for what Hydra or OmegaConf or YAML could not read, where no check of ours came first."""
    text = str(error).strip()
    cause = error.__cause__ or error.__context__
    if isinstance(cause, MarkedYAMLError):
        error = cause
    if isinstance(error, MarkedYAMLError):
        return broken_yaml(error)
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        return (
            f"{key}: cannot read the value {value!r}: {text.splitlines()[0]}."
            f" Put it in double quotes inside single ones: '{key}=\"...\"'"
        )
    if isinstance(error, MissingConfigException):
        group, _, choice = (error.missing_cfg_file or "").rpartition("/")
        if group and error.options:
            named_in = re.match(r"In '([^']+)'", text)
            where = f"{named_in[1]}.yaml: " if named_in and not named_in[1].startswith("hydra/") else ""
            return where + unknown_choice(group, choice, error.options)
        return f"{text.splitlines()[0]} Name a YAML file without its ending, in a folder given by --config-dir."
    if isinstance(error, OmegaConfBaseException) or isinstance(cause, OmegaConfBaseException):
        inner = error if isinstance(error, OmegaConfBaseException) else cause
        key = getattr(inner, "full_key", None) or ""
        return f"{key}: {str(inner).splitlines()[0]}. Correct the setting; llmft {command} --cfg job shows all values."
    assert isinstance(error, HydraException | ValueError), error
    if named_in := re.match(r"In '(experiment/[^']+)': Could not override '\w+@experiment", text):
        return f"{named_in[1]}.yaml: {NO_PACKAGE}"
    return re.sub(r"\s+", " ", text)


def broken_yaml(error: MarkedYAMLError) -> str:
    """Where a YAML file stops being YAML, as file:line:column."""
    mark = error.problem_mark or error.context_mark
    place = f"{mark.name}:{mark.line + 1}:{mark.column + 1}" if mark else "a YAML file"
    return f"{place}: not valid YAML: {error.problem or error.context}. Correct the file there, or in the line above."

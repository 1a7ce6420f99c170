"""Names in YAML become functions, and their options are held against the signatures, before any model is loaded."""

import functools
import importlib
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from llmft.config.explain import suggest
from llmft.errors import ConfigError


def bind(name: str, table: Mapping[str, str], plugins: Collection[str], where: str) -> Callable[..., Any]:
    """The function that `name` stands for: a row of `table`, or with a dot an import path.

    An import path has to begin with one of `plugins`, the packages that the operator trusts, or to name what `table` could;
    and what it names has to be defined there, not only imported: a trusted package may well import os.system.
    where: the setting that holds the name, for messages.
    Raises ConfigError if there is no such row, package or function.
    """
    built_in = "." not in name
    if built_in:
        if name not in table:
            raise ConfigError(
                f"{where}={name}: no such name.{suggest(name, table)} Built in: {', '.join(sorted(table))};"
                " or a dotted name, package.function, with plugins=[package]."
            )
        name = table[name]
    package = name.split(".")[0]
    if package == "llmft" and not built_in and name not in table.values():
        rows = ", ".join(sorted(table)) or "none"
        raise ConfigError(f"{where}={name}: a part of llmft that settings do not name. Built in here: {rows}.")
    if package != "llmft" and not any(name.startswith(f"{plugin}.") for plugin in plugins):
        raise ConfigError(f"{where}={name}: {package} is not among the trusted packages. If you trust it: plugins=[{package}]")
    if not all(part.isidentifier() and not part.startswith("__") for part in name.split(".")):
        raise ConfigError(f"{where}={name}: not an import path. Expected package.function or package.module.function.")
    module_name, _, attribute = name.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a plugin may raise anything
        what = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        raise ConfigError(
            f"{where}={name}: cannot import {module_name}: {what}{error}. Install it, or correct the name."
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        known = [other for other in vars(module) if callable(getattr(module, other)) and not other.startswith("_")]
        raise ConfigError(
            f"{where}={name}: {module_name} has no function {attribute}.{suggest(attribute, known)} Correct the name."
        )
    home = _home(function)
    if not any(f"{home}.".startswith(f"{trusted}.") for trusted in ("llmft", *plugins)):
        raise ConfigError(
            f"{where}={name}: {module_name} only imports {attribute}, it belongs to {home or 'no package that can be told'}."
            f" Name it where it is defined, with plugins=[{home.split('.')[0] or 'PACKAGE'}] if you trust that."
        )
    return function


def _home(function: Callable[..., Any]) -> str:
    """The module in which a function or class is defined, "" if it does not say; of a partial that of the function in it."""
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__module__", None) or "")


def check_options(function: Callable[..., Any], options: Mapping[str, Any], given: int, where: str) -> None:
    """Refuse options that `function` does not take, and report those that it needs.

    given: how many leading arguments llmft itself passes.
    Raises ConfigError with everything that is wrong.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return  # written in C, says nothing about itself
    title = getattr(function, "__name__", str(function))
    ours = [each.name for each in parameters[:given] if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    by_name = [
        each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY) and each.name not in ours
    ]
    takes = [each.name for each in by_name]
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters)
    problems = []
    for name in options:
        if name in ours:
            problems.append(f"{where}.{name}: {title} gets {name} from llmft. Leave it out.")
        elif name not in takes and not takes_any:
            expected = f"it takes {', '.join(takes)}" if takes else "it takes none"
            problems.append(f"{where}.{name}: {title} has no such option, {expected}.{suggest(name, takes)}")
    for each in by_name:
        if each.default is each.empty and each.name not in options:
            problems.append(f"{where}.{each.name}: {title} needs it. Add {where}.{each.name}=...")
    if len(ours) < given and not any(each.kind is each.VAR_POSITIONAL for each in parameters):
        problems.append(
            f"{where}: {title} takes {len(ours)} arguments, expected {given} that llmft passes. Change the function."
        )
    if problems:
        raise ConfigError(*problems)


@contextmanager
def try_options(where: str, options: Mapping[str, Any]) -> Iterator[None]:
    """What is bound is used once inside: an option of the wrong kind then costs a second and not a model.

    Raises ConfigError for whatever goes wrong there.
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        given = ", ".join(f"{name}={value}" for name, value in options.items()) or "no options"
        raise ConfigError(f"{where}: does not work with {given}: {error}. Correct the options or the function.") from error


def bind_all(*attempts: Callable[[], Any]) -> list[Any]:
    """Call each of `attempts` and return their results. Raises one ConfigError with the problems of all of them."""
    results: list[Any] = []
    problems: list[str] = []
    for attempt in attempts:
        try:
            results.append(attempt())
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(*problems)
    return results

"""The task's row function: what it makes of each record, what is said where it fails, and what it is known by."""

import inspect
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from llmft.data.row import Row
from llmft.data.strict_json import shortened
from llmft.errors import ConfigError, DataError

Fields = dict[str, Any]
RowFunction = Callable[[Fields], Fields | list[Fields] | None]
"""A record's columns -> a row's, those of several rows, or None to leave the record out."""


def apply_row(rows: Iterable[Row], function: RowFunction | None) -> Iterator[Row]:
    """Pass every record through the function. Raises DataError as `rows_of`."""
    for row in rows:
        yield from rows_of(row, function)


def rows_of(row: Row, function: RowFunction | None) -> list[Row]:
    """Return what the function makes of a record; without one, the record as it is.

    Of several rows made from one record, each is named by its id, or else by its number.
    Raises DataError with the record where the function fails, or returns something else.
    """
    if function is None:
        return [row]
    try:
        made = function(dict(row.fields))
    except DataError as error:
        raise DataError(f"{row.where}: {error}") from error
    except Exception as error:
        raise DataError(
            f"{row.where}: task.row raised {described(error)}. Fix the function, or let it return None for such a row."
        ) from error
    several = [] if made is None else made if isinstance(made, list) else [made]
    if not all(isinstance(fields, dict) for fields in several):
        raise DataError(
            f"{row.where}: task.row returned {shortened(made)}; expected a dict, a list of dicts, or None. Fix the function."
        )
    if len(several) == 1:
        return [Row(several[0], row.where)]
    return [Row(fields, f"{row.where}, {name_of(fields, number)}") for number, fields in enumerate(several, start=1)]


def name_of(fields: Fields, number: int) -> str:
    """Name one of several rows so that it can be found in the file."""
    own = fields.get("id")
    return f"id {own}" if isinstance(own, str | int) and own != "" else f"#{number}"


def described(error: Exception) -> str:
    """Say what a function of the user's raised, and on which line."""
    line = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error}, at {line.filename}:{line.lineno}"


def source_of(function: Callable[..., Any]) -> str:
    """Return a row function's name and the source of the file that it is in: what it calls is mostly there too.

    Raises ConfigError for a function without one, written in C: what it does could not be told from what it did.
    """
    try:
        module = inspect.getmodule(function)
        return f"{function.__qualname__}\n{inspect.getsource(module or function)}"
    except (OSError, TypeError, AttributeError) as error:
        raise ConfigError(f"task.row={function}: it has no Python source. Name a function written in Python.") from error

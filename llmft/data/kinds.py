"""One kind of value in a column, from the first row to the last: text, numbers, truth values or objects.

What is filled into a text hides its kind: 3.0 among texts becomes "3.0", true becomes "true". Null, an empty text and an
empty list are of no kind, a list is of the kind of what is in it, and whole numbers and others are of one.
"""

from collections.abc import Iterable
from typing import Any

from llmft.data.row import Row
from llmft.data.strict_json import shortened
from llmft.data.template import Column
from llmft.errors import DataError


class Kinds:
    """What kind of value each of these columns held in the rows so far, and where that was first seen."""

    def __init__(self, columns: Iterable[Column]):
        self._columns = tuple(dict.fromkeys(columns))
        self._seen: dict[Column, tuple[str, str]] = {}

    def check(self, row: Row) -> None:
        """Raises DataError if a column is missing, or of another kind than in a row before."""
        for column in self._columns:
            value = column.value(row)
            kind = kind_of(value)
            if kind is None:
                continue
            first, where = self._seen.setdefault(column, (kind, row.where))
            if kind != first:
                raise DataError(
                    f"{row.where}: column {column.text!r} is {kind} ({shortened(value)}), but {first} in {where}; expected one kind "
                    "of value in a column. Fix the data, or make them alike by task.row."
                )


def kind_of(value: Any) -> str | None:
    """Return what a value is, in words; None for one without content."""
    if isinstance(value, str):
        return "text" if value else None
    if value is None:
        return None
    if isinstance(value, bool):
        return "a truth value"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, list):
        return " and ".join(sorted({kind for kind in map(kind_of, value) if kind})) or None
    return "an object" if isinstance(value, dict) else f"a {type(value).__name__}"

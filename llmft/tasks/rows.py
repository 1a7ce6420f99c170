"""What formulations read from a row in the same way."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from llmft.data.dataset import RowSource
from llmft.data.kinds import Kinds
from llmft.data.row import Row
from llmft.data.template import Template
from llmft.errors import DataError

Made = TypeVar("Made")


def each(rows: Iterable[Row], make: Callable[[Row, int], Made], read: Iterable[Template] = ()) -> Iterator[Made]:
    """Make something of each row, given with its number from 0; what the templates read has to be of one kind in all of them.

    A row of which nothing can be made is left out where its split allows such rows. Raises DataError where not.
    """
    kinds = Kinds(place for template in read for place in template.places)
    for number, row in enumerate(rows):
        try:
            kinds.check(row)
            made = make(row, number)
        except DataError as error:
            if not isinstance(rows, RowSource):
                raise
            rows.leave_out(row.where, error)
            continue
        yield made


def row_id(row: Row, number: int) -> str:
    """Return the row's own id, or else its number within the split, from 0."""
    value = row.fields.get("id")
    return str(value) if isinstance(value, str | int) and value != "" else str(number)


def field_of(row: Row, column: str, key: str) -> Any:
    """Return a column's value as it is. Raises DataError if the row has none of that name."""
    if column not in row.fields:
        raise DataError(
            f"{row.where}: no column {column!r}; the row has {', '.join(map(str, row.fields))}. Fix {key} or the data."
        )
    return row.fields[column]


def templates(setting: Any, key: str) -> list[Template]:
    """Return the templates of a setting that holds one, several or none."""
    if setting is None:
        return []
    return [Template(text, key) for text in ([setting] if isinstance(setting, str) else setting)]

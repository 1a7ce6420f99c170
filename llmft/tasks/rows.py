"""What formulations read from a row in the same way."""

from typing import Any

from llmft.data.row import Row
from llmft.data.template import Template
from llmft.errors import DataError


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

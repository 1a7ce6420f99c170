"""What a row's labels are."""

import json
import math
from collections.abc import Sequence
from typing import Any

from llmft.config.schema import LabelKind, Task
from llmft.data.row import Row
from llmft.data.strict_json import number_text, shortened
from llmft.data.template import Template, column_of, described
from llmft.errors import ConfigError, DataError


class LabelTarget:
    """Reads labels by task.target; several labels stand in one column as a list.

    Raises ConfigError where they are asked for and task.target is more than a column.
    """

    def __init__(self, task: Task):
        self.task = task
        self.template = Template(task.target, "task.target")
        several = task.label_kind is LabelKind.multi
        if several and self.template.columns != (task.target[1:-1],):
            raise ConfigError(
                f"task.target={task.target}: task.label_kind=multi reads a list of labels; expected one column, as in {{labels}}. "
                "Name it, or set task.label_kind=single."
            )
        self.column = column_of(task.target, "task.target") if several else None

    def read(self, row: Row) -> tuple[str, ...]:
        """Return the row's labels: one, any number, or a number as text. Raises DataError for what is none."""
        if self.column is not None:
            return self.several(self.column.value(row), row)
        found = self.template.fill_all(row)
        if len(found) != 1 or not found[0].strip():
            what = f"{len(found)} labels ({shortened(found)})" if len(found) > 1 else "empty"
            several = " Set task.label_kind=multi if rows may have several." if len(found) > 1 else ""
            raise DataError(
                f"{row.where}: the label is {what}; expected one in {self.task.target}. Fix task.target or the data.{several}"
            )
        if self.task.label_kind is LabelKind.value and not is_number(found[0]):
            raise DataError(
                f"{row.where}: the value is {shortened(found[0])}; expected a finite number in {self.task.target}. Fix task.target "
                "or the data, or set task.label_kind=single for classes."
            )
        return (found[0],)

    def several(self, value: Any, row: Row) -> tuple[str, ...]:
        """Return the labels in a list, each once; an empty list is none, and so is an empty cell of a table.

        A table writes a list as JSON.
        """
        if isinstance(value, str) and value.startswith("["):
            value = list_in(value, "the text", row.where)
        labels = [as_text(item) for item in (value if isinstance(value, list) else [] if value == "" else [value])]
        if None in labels or "" in labels:
            raise DataError(
                f"{row.where}: the labels are {described(value)}; expected a list of texts, empty for none. Fix task.target or the data."
            )
        return tuple(dict.fromkeys(label for label in labels if label))


def as_text(value: Any) -> str | None:
    """Return a text as it is, a number or truth value as JSON writes it, and None for anything else."""
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return number_text(value)
    return value if isinstance(value, str) else None


def list_in(text: str, what: str, where: str) -> list[Any]:
    """Return a list written as JSON, as tables hold it. Raises DataError if it is none."""
    try:
        return list(json.loads(text))
    except json.JSONDecodeError as error:
        raise DataError(
            f'{where}: {what} {shortened(text)} is no JSON list: {error}. Expected ["a", "b"]; write it so.'
        ) from error


def is_number(text: str) -> bool:
    """Whether a text is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def named(labels: Sequence[str], most: int = 20) -> str:
    """List labels for an error message."""
    return ", ".join(map(repr, labels[:most])) + (f" and {len(labels) - most} more" if len(labels) > most else "")

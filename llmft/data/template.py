"""Templates over a row's columns: "{article}", "{translation.en}", "{answers.text[0]}"; "{{" and "}}" are braces."""

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from llmft.data.row import Row
from llmft.data.strict_json import number_text, shortened
from llmft.errors import ConfigError, DataError

PIECE = re.compile(r"(?P<text>[^{}]+)|(?P<brace>\{\{|\}\})|\{(?P<column>[^{}]+)\}")
STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
COLUMN = re.compile(rf"([^.\[\]]+)((?:{STEP.pattern})*)")


@dataclass(frozen=True)
class Column:
    """A place in a row: a column, then keys of objects and positions in lists below it; `key` is the setting that names it."""

    text: str
    steps: tuple[str | int, ...]
    key: str

    def value(self, row: Row) -> Any:
        """Return what the row has there; a column whose whole name is written, dots and all, goes first.

        Raises DataError if it has nothing.
        """
        if self.text in row.fields:
            return row.fields[self.text]
        value: Any = row.fields
        for step in self.steps:
            if not holds(value, step):
                raise DataError(self._missing(row, step, value))
            value = value[step]
        return value

    def whole_numbers(self, row: Row) -> list[int] | None:
        """Return the list of whole numbers there, or one number as a list; None if the row has null there, or no such place.

        What the place is in has to be there: a row without answers is not one whose answers have no answer_start.
        Raises DataError for anything else.
        """
        above = Column(self.text.rpartition(".")[0], self.steps[:-1], self.key)
        found = above.value(row) if above.steps and self.text not in row.fields else row.fields
        value = self.value(row) if self.text in row.fields or holds(found, self.steps[-1]) else None
        if value is None:
            return None
        numbers = value if isinstance(value, list) else [value]
        if not all(type(number) is int for number in numbers):
            raise DataError(
                f"{row.where}: column {self.text!r} is {described(value)}; expected whole numbers. Fix {self.key} or the data."
            )
        return list(numbers)

    def _missing(self, row: Row, step: str | int, found: Any) -> str:
        if isinstance(step, int) or not isinstance(found, dict):
            return (
                f"{row.where}: no {self.text!r}: found {described(found)} where {step!r} was looked for. "
                f"Fix {self.key} or the data."
            )
        has = f"the row has {', '.join(map(str, found))}" if found is row.fields else f"found {', '.join(map(str, found))}"
        names = [str(name) for name in found]
        near = [name for name in names if name.casefold() == step.casefold()] or difflib.get_close_matches(step, names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"{row.where}: no column {self.text!r}; {has}.{hint} Fix {self.key} or the data."


class Template:
    """A text with columns in it, parsed once; `key` is the setting it comes from and goes into every complaint.

    Raises ConfigError if the text is no template.
    """

    def __init__(self, text: str, key: str = "task.source"):
        self.text = text
        self.key = key
        self._pieces = pieces_of(text, key)
        alone = len(self._pieces) == 1 and isinstance(self._pieces[0], Column)
        self._column = cast(Column, self._pieces[0]) if alone else None
        self.places = tuple(dict.fromkeys(piece for piece in self._pieces if isinstance(piece, Column)))
        self.columns = tuple(dict.fromkeys(place.text for place in self.places))

    def fill(self, row: Row) -> str:
        """Return the text with the row's values in it; a list of texts is joined by spaces.

        Raises DataError if the row has no such column, or no text or number there.
        """
        filled = []
        for piece in self._pieces:
            value = self._value(piece, row) if isinstance(piece, Column) else piece
            filled.append(" ".join(value) if isinstance(value, list) else value)
        return "".join(filled)

    def fill_all(self, row: Row, may_be_empty: bool = False) -> list[str]:
        """Return one text per element where the template is a single column that holds a list; else what `fill` gives.

        An empty list gives none where the caller says that it may. Raises DataError as `fill`.
        """
        if self._column is None:
            return [self.fill(row)]
        if may_be_empty and self._column.value(row) == []:
            return []
        value = self._value(self._column, row)
        return value if isinstance(value, list) else [value]

    def is_blank(self, row: Row) -> bool:
        """Whether the template is a single column, and that is null, an empty text or an empty list in this row."""
        return self._column is not None and self._column.value(row) in (None, "", [])

    def _value(self, column: Column, row: Row) -> str | list[str]:
        """Return the text or the non-empty list of texts that the row has in a column."""
        value = column.value(row)
        if isinstance(value, str):
            return value
        if isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
            return number_text(value)
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            return list(value)
        raise DataError(
            f"{row.where}: column {column.text!r} is {described(value)}; expected text, a number or a list of texts. "
            f"Fix {self.key} or the data."
        )


def fill_each(templates: Sequence[Template], row: Row) -> list[str]:
    """Return the texts of several templates, such as columns of references, each as `Template.fill_all` gives them.

    Of several, columns with nothing in them are left out. Raises DataError if all are, or as `fill_all`.
    """
    filled = [template for template in templates if len(templates) == 1 or not template.is_blank(row)]
    if not filled:
        names = ", ".join(template.text for template in templates)
        raise DataError(f"{row.where}: nothing in {names}; expected a text in one of them. Fix {templates[0].key} or the data.")
    return [text for template in filled for text in template.fill_all(row)]


def column_of(text: str, key: str) -> Column:
    """Return the place that a setting names, with or without braces around it. Raises ConfigError if it names none."""
    bare = text[1:-1] if text.startswith("{") and text.endswith("}") else text
    named = COLUMN.fullmatch(bare)
    if named is None or bare != bare.strip() or "{" in bare or "}" in bare:
        raise ConfigError(
            f"{key}: {text!r} is no column; expected a name as in {{article}}, {{translation.en}} or {{answers[0]}}. "
            "Correct the name."
        )
    return Column(bare, (named[1], *(name or int(index) for name, index in STEP.findall(named[2]))), key)


def holds(value: Any, step: str | int) -> bool:
    """Whether an object has this key, or a list this place."""
    return step in value if isinstance(value, dict) else isinstance(value, list) and step in range(len(value))


def pieces_of(text: str, key: str) -> list[str | Column]:
    """Cut a template into plain texts and columns. Raises ConfigError."""
    pieces: list[str | Column] = []
    position = 0
    while position < len(text):
        match = PIECE.match(text, position)
        if match is None:
            what = "a { that is never closed, or closed without a column" if text[position] == "{" else "a } without {"
            raise ConfigError(
                f"{key}: {what}, at character {position + 1} of {text!r}; expected {{column}}. Write {{{{ and }}}} for braces."
            )
        position = match.end()
        if match["column"] is None:
            pieces.append(match["text"] or match["brace"][0])
            continue
        pieces.append(column_of(match[0], key))
    return pieces


def described(value: Any) -> str:
    """Say what a value is, for an error message."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"a list of {len(value)} ({shortened(value)})" if value else "an empty list"
    if isinstance(value, dict):
        return f"an object with {', '.join(map(str, value))}" if value else "an empty object"
    return f"{type(value).__name__} {shortened(value)}"

"""Templates over a row's columns: "{article}", "{translation.en}", "{answers.text[0]}"; "{{" and "}}" are braces."""

import difflib
import json
import math
import re
from dataclasses import dataclass
from typing import Any

from llmft.data.row import Row
from llmft.data.strict_json import shortened
from llmft.errors import ConfigError, DataError

PIECE = re.compile(r"(?P<text>[^{}]+)|(?P<brace>\{\{|\}\})|\{(?P<column>[^{}]+)\}")
STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
COLUMN = re.compile(rf"([^.\[\]]+)((?:{STEP.pattern})*)")


@dataclass(frozen=True)
class Column:
    """A place in a row: a column, then keys of objects and positions in lists below it."""

    text: str
    steps: tuple[str | int, ...]


class Template:
    """A text with columns in it, parsed once; `key` is the setting it comes from and goes into every complaint.

    Raises ConfigError if the text is no template.
    """

    def __init__(self, text: str, key: str = "task.source"):
        self.text = text
        self.key = key
        self._pieces = pieces_of(text, key)
        self.columns = tuple(dict.fromkeys(piece.text for piece in self._pieces if isinstance(piece, Column)))

    def fill(self, row: Row) -> str:
        """Return the text with the row's values in it; a list of texts is joined by spaces.

        Raises DataError if the row has no such column, or no text or number there.
        """
        filled = []
        for piece in self._pieces:
            value = self._value(piece, row) if isinstance(piece, Column) else piece
            filled.append(" ".join(value) if isinstance(value, list) else value)
        return "".join(filled)

    def fill_all(self, row: Row) -> list[str]:
        """Return one text per element where the template is a single column that holds a list; else what `fill` gives."""
        if len(self._pieces) == 1 and isinstance(self._pieces[0], Column):
            value = self._value(self._pieces[0], row)
            return value if isinstance(value, list) else [value]
        return [self.fill(row)]

    def _value(self, column: Column, row: Row) -> str | list[str]:
        """Return the text or the non-empty list of texts that the row has in a column."""
        value = self._look_up(column, row)
        if isinstance(value, str):
            return value
        if isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
            return json.dumps(value)
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            return list(value)
        raise DataError(
            f"{row.where}: column {column.text!r} is {described(value)}; expected text, a number or a list of texts. "
            f"Fix {self.key} or the data."
        )

    def _look_up(self, column: Column, row: Row) -> Any:
        """Walk down to the value; a column whose whole name is written, dots and all, goes first."""
        if column.text in row.fields:
            return row.fields[column.text]
        value: Any = row.fields
        for step in column.steps:
            if not (step in value if isinstance(value, dict) else isinstance(value, list) and step in range(len(value))):
                raise DataError(self._missing(column, row, step, value))
            value = value[step]
        return value

    def _missing(self, column: Column, row: Row, step: str | int, found: Any) -> str:
        if isinstance(step, int) or not isinstance(found, dict):
            return (
                f"{row.where}: no {column.text!r}: found {described(found)} where {step!r} was looked for. "
                f"Fix {self.key} or the data."
            )
        has = f"the row has {', '.join(map(str, found))}" if found is row.fields else f"found {', '.join(map(str, found))}"
        near = difflib.get_close_matches(step, [str(name) for name in found], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"{row.where}: no column {column.text!r}; {has}.{hint} Fix {self.key} or the data."


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
        named = COLUMN.fullmatch(match["column"])
        if named is None or match["column"] != match["column"].strip():
            raise ConfigError(
                f"{key}: {match[0]!r} is no column; expected a name as in {{article}}, {{translation.en}} or {{answers[0]}}. "
                "Correct the name."
            )
        steps = tuple(name or int(index) for name, index in STEP.findall(named[2]))
        pieces.append(Column(match["column"], (named[1], *steps)))
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

"""JSON as RFC 8259 has it, and nothing that reads differently elsewhere: no NaN, no duplicate keys, no lone surrogates."""

import json
import math
import re
from typing import Any

MAX_DEPTH = 64
"""Deepest nesting of lists and objects; no text data needs more, and deeper values exhaust the stack later on."""
SPACE = re.compile(r"[ \t\r\n]*")
SURROGATE = re.compile("[\ud800-\udfff]")


class WrittenFloat(float):
    """A number with a fraction or an exponent that is not written as Python would; `text` is how the file has it."""

    text: str


class Malformed(Exception):
    """The text is not JSON; `position` is the character where that shows."""

    def __init__(self, message: str, position: int):
        super().__init__(message)
        self.position = position


class StrictDecoder:
    """Decodes values out of a text; what is JSON by syntax but not to be trusted goes to `faults`."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object, parse_constant=self._constant, parse_float=self._float)

    def decode(self, text: str, start: int = 0) -> tuple[Any, int]:
        """Return the value at `start` and the position after it and the white space that follows; refill `faults`.

        Raises Malformed.
        """
        self.faults = []
        try:
            value, end = self._decoder.raw_decode(text, space_after(text, start))
        except json.JSONDecodeError as err:
            raise Malformed(err.msg, err.pos) from err
        except RecursionError as err:
            raise Malformed(f"nested deeper than {MAX_DEPTH} levels", start) from err
        except ValueError as err:  # an integer of more digits than Python converts
            raise Malformed(str(err).partition(";")[0], start) from err
        problem = problem_in(value)
        if problem:
            self.faults.append(problem)
        return value, space_after(text, end)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            keys = [key for key, _ in pairs]
            self.faults.append(f"key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object")
        return fields

    def _constant(self, name: str) -> None:
        self.faults.append(f"{name} is not a JSON number")

    def _float(self, text: str) -> float:
        number = float(text)
        if math.isinf(number):
            self.faults.append(f"the number {text[:40]} is too large")
        if repr(number) == text:
            return number
        written = WrittenFloat(number)
        written.text = text
        return written


def number_text(value: float) -> str:
    """Return a number or truth value as the file has it: 1.10 stays 1.10, and no digit is lost."""
    return value.text if isinstance(value, WrittenFloat) else json.dumps(value)


def space_after(text: str, start: int) -> int:
    """Return the position of the first character at or after `start` that is not JSON white space."""
    return SPACE.match(text, start).end()  # type: ignore[union-attr]  # an empty match is a match


def problem_in(value: Any) -> str | None:
    """Return what in `value`, at any depth, cannot be text: lone surrogates, NUL, nesting too deep."""
    stack = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, str):
            if "\0" in item:
                return f"NUL character in {shortened(item)}"
            if not item.isascii() and SURROGATE.search(item):
                return f"half of a surrogate pair in {shortened(item)}"
        elif depth == MAX_DEPTH and isinstance(item, (dict, list)):
            return f"nested deeper than {MAX_DEPTH} levels"
        elif isinstance(item, dict):
            stack += [(key, depth) for key in item]
            stack += [(child, depth + 1) for child in item.values()]
        elif isinstance(item, list):
            stack += [(child, depth + 1) for child in item]
    return None


def shortened(value: Any, limit: int = 40) -> str:
    """Return `value` as ASCII for an error message, cut to `limit` characters."""
    text = ascii(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."

"""Rows of .jsonl (one object a line) and .json (a list of objects, an object that holds one, or objects in sequence)."""

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, NamedTuple

from llmft.data.row import BadRow, Lines, Row
from llmft.data.strict_json import Malformed, StrictDecoder, shortened, space_after
from llmft.errors import DataError


class NumberedLine(NamedTuple):
    """A line with its number from 1, whether it has an end, and what is wrong with its bytes."""

    text: str
    number: int
    complete: bool
    fault: BadRow | None


def jsonl_rows(lines: Lines) -> Iterator[Row | BadRow]:
    """Yield one row per line, memory does not grow with the file; blank lines are passed over.

    Where the first value goes on in the second line, the file holds objects in sequence, or a list, and is read as such.
    Raises DataError where such a file is no JSON: what follows cannot be told apart.
    """
    found = (line for line in numbered(lines) if line.fault or space_after(line.text, 0) < len(line.text))
    head = list(islice(found, 2))
    if len(head) == 2 and goes_on(head[0], head[1]):
        yield from spread_rows(lines, head[0], head[1])
        return
    decoder = StrictDecoder()
    for line in chain(head, found):
        yield line.fault or row_of_line(line, lines.name, decoder)


def numbered(lines: Lines) -> Iterator[NumberedLine]:
    """Yield the lines with what is known of each."""
    for text in lines:
        yield NumberedLine(text, lines.number, lines.complete, lines.take_fault())


def row_of_line(line: NumberedLine, name: str, decoder: StrictDecoder) -> Row | BadRow:
    """Return the object that a line holds."""
    where = f"{name}:{line.number}"
    try:
        value, end = decoder.decode(line.text)
    except Malformed as err:
        cut = "" if line.complete else " The file ends within this row: it may have been cut off."
        return BadRow(where, f"not JSON at column {err.position + 1}: {err}; expected one JSON object a line.{cut}")
    if end < len(line.text):
        return BadRow(where, f"more text after the value, at column {end + 1}; expected one JSON object a line.")
    return row_of(value, where, decoder.faults)


def goes_on(first: NumberedLine, second: NumberedLine) -> bool:
    """Whether the value that begins in the first line is right so far, unfinished, and goes on in the second."""
    return not first.fault and is_begun(first.text) and is_begun(first.text + second.text, or_whole=True)


def is_begun(text: str, or_whole: bool = False) -> bool:
    """Whether `text` begins an object or a list and is cut off where it could go on; or whether it has a whole one."""
    try:
        StrictDecoder().decode(text)
    except Malformed as err:
        return text[space_after(text, 0)] in "{[" and space_after(text, err.position) == len(text)
    return or_whole


def spread_rows(lines: Lines, first: NumberedLine, second: NumberedLine) -> Iterator[Row | BadRow]:
    """Yield the values of a .jsonl file in which they are longer than a line."""
    before, between = first.number - 1, second.number - first.number - 1
    text = "\n" * before + first.text + "\n" * between + second.text + "".join(lines)
    fault = second.fault or lines.take_fault()
    if fault:
        raise DataError(f"{fault.where}: {fault.reason} Repair the file.")
    advice = f"Repair it; if the file has one object a line, repair line {first.number}, which has only part of one."
    for line, value, faults, _ in values_in(text, lines.name, "expected objects one after the other", advice):
        yield row_of(value, f"{lines.name}:{line}", faults)


def json_rows(lines: Lines, rows_under: str | None) -> Iterator[Row | BadRow]:
    """Yield the rows of a .json file. Raises DataError where it is no JSON: what follows cannot be told apart."""
    text = "".join(lines)
    fault = lines.take_fault()
    if fault:
        raise DataError(f"{fault.where}: {fault.reason} Repair the file.")
    expected = "expected a list of objects, or an object that holds one"
    values = values_in(text, lines.name, expected, "Repair the file, or name it .jsonl if it has one object a line.")
    first = next(values, None)
    if first is None:
        return
    line, value, faults, last = first
    if last and isinstance(value, dict) and not text.startswith("[", space_after(text, 0)):
        yield from rows_within(value, f"{lines.name}:{line}", faults, rows_under)
        return
    if rows_under is not None:
        raise DataError(
            f"{lines.name}:{line}: the file is a sequence of rows, not an object with the key {rows_under!r}. "
            "Remove task.data.rows_under."
        )
    yield row_of(value, f"{lines.name}:{line}", faults)
    for line, value, faults, _ in values:
        yield row_of(value, f"{lines.name}:{line}", faults)


def values_in(text: str, name: str, expected: str, advice: str) -> Iterator[tuple[int, Any, list[str], bool]]:
    """Yield the elements of a JSON list, or values in sequence: line, value, its faults, and whether it is the last."""
    decoder = StrictDecoder()
    start = space_after(text, 0)
    in_list = text.startswith("[", start)
    if in_list:
        start = space_after(text, start + 1)
    counted, line = 0, 1
    more = not text.startswith("]", start) if in_list else start < len(text)
    end = start
    try:
        while more:
            value, end = decoder.decode(text, start)
            line += text.count("\n", counted, start)
            counted = start
            more = text.startswith(",", end) if in_list else end < len(text)
            yield line, value, decoder.faults, not more
            start = space_after(text, end + 1) if in_list and more else end
        if in_list:
            if not text.startswith("]", end):
                raise Malformed("expected , or ] after the element", end)
            end = space_after(text, end + 1)
            if end < len(text):
                raise Malformed("more text after the list", end)
    except Malformed as err:
        place = f"{name}:{text.count(chr(10), 0, err.position) + 1}"
        column = err.position - text.rfind("\n", 0, err.position)
        ended = space_after(text, err.position) == len(text) or str(err).startswith("Unterminated")
        cut = " The file may have been cut off." if ended else ""
        raise DataError(f"{place}: not JSON at column {column}: {err}; {expected}.{cut} {advice}") from err


def rows_within(value: dict[str, Any], where: str, faults: list[str], rows_under: str | None) -> Iterator[Row | BadRow]:
    """Yield the objects in the list that `value` keeps under a key; an object without such a list is a single row."""
    if faults:
        raise DataError(f"{where}: {faults[0]}; expected strict JSON. Repair the file.")
    lists = [key for key, item in value.items() if isinstance(item, list) and all(isinstance(x, dict) for x in item)]
    if rows_under is None and not lists:
        yield Row(value, where)
        return
    if rows_under is None and len(lists) > 1:
        raise DataError(
            f"{where}: lists of rows under {', '.join(lists)}; expected one. Choose it: task.data.rows_under={lists[0]}."
        )
    path = lists[0] if rows_under is None else rows_under
    found: Any = value
    for key in path.split(".") if path not in value else [path]:
        if not isinstance(found, dict) or key not in found:
            raise DataError(
                f"{where}: no key {path!r}; the object has {', '.join(value)}. Fix task.data.rows_under, or remove it."
            )
        found = found[key]
    if not isinstance(found, list):
        raise DataError(f"{where}: {path} is {shortened(found)}; expected a list of objects. Fix task.data.rows_under.")
    for index, item in enumerate(found):
        yield row_of(item, f"{where.rpartition(':')[0]}:{path}[{index}]", [])


def row_of(value: Any, where: str, faults: list[str]) -> Row | BadRow:
    """Return a decoded value as a row if it is an object without faults."""
    if faults:
        return BadRow(where, f"{faults[0]}; expected strict JSON.")
    if not isinstance(value, dict):
        return BadRow(where, f"found {shortened(value)}; expected a JSON object with the row's columns.")
    return Row(value, where)

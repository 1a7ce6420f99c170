"""Rows of .jsonl (one object a line) and .json (a list of objects, an object that holds one, or objects in sequence)."""

from collections.abc import Iterator
from typing import Any

from llmft.data.row import BadRow, Lines, Row
from llmft.data.strict_json import Malformed, StrictDecoder, shortened, space_after
from llmft.errors import DataError


def jsonl_rows(lines: Lines) -> Iterator[Row | BadRow]:
    """Yield one row per line; blank lines are passed over. Memory does not grow with the file."""
    decoder = StrictDecoder()
    for line in lines:
        where = f"{lines.name}:{lines.number}"
        fault = lines.take_fault()
        if fault:
            yield fault
            continue
        if space_after(line, 0) == len(line):
            continue
        try:
            value, end = decoder.decode(line)
        except Malformed as err:
            cut = "" if lines.complete else " The file ends within this row: it may have been cut off."
            yield BadRow(where, f"not JSON at column {err.position + 1}: {err}; expected one JSON object a line.{cut}")
            continue
        if end < len(line):
            yield BadRow(where, f"more text after the value, at column {end + 1}; expected one JSON object a line.")
        else:
            yield row_of(value, where, decoder.faults)


def json_rows(lines: Lines, rows_under: str | None) -> Iterator[Row | BadRow]:
    """Yield the rows of a .json file. Raises DataError where it is no JSON: what follows cannot be told apart."""
    text = "".join(lines)
    fault = lines.take_fault()
    if fault:
        raise DataError(f"{fault.where}: {fault.reason} Repair the file.")
    values = values_in(text, lines.name)
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


def values_in(text: str, name: str) -> Iterator[tuple[int, Any, list[str], bool]]:
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
        cut = " The file may have been cut off." if space_after(text, err.position) == len(text) else ""
        raise DataError(
            f"{place}: not JSON at column {column}: {err}; expected a list of objects, or an object that holds one.{cut} "
            "Repair the file, or name it .jsonl if it has one object a line."
        ) from err


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

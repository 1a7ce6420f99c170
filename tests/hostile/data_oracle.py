"""What has to come of a data file, found out without llmft's readers: from the rules of the formats, a few lines for each."""

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

FOREIGN = (
    b"\xff\xfe",
    b"\xfe\xff",
    b"\0\0\xfe\xff",
    b"\x1f\x8b",
    b"PK\x03\x04",
    b"PAR1",
    b"ARROW1",
    b"version https://git-lfs",
)


class Refused(Exception):
    """The file has to be refused, at one of these lines; None: wherever."""

    def __init__(self, *lines: int):
        super().__init__(lines)
        self.lines = range(lines[0], lines[-1] + 1) if lines else None


@dataclass(frozen=True)
class Number:
    """A number as it is written."""

    text: str


Record = tuple[dict[str, Any], int]


def texts_in(data: bytes) -> Iterator[tuple[str, int, bool]]:
    """Yield the lines with their numbers, and whether they are text; without marks at the start of the file."""
    if data.startswith(FOREIGN):
        raise Refused(1)
    for number, line in enumerate(re.findall(rb"[^\n]*\n|[^\n]+", data.removeprefix(b"\xef\xbb\xbf")), 1):
        try:
            yield line.decode(), number, b"\0" not in line
        except UnicodeDecodeError:
            yield line.decode(errors="replace"), number, False


def strict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


def refuse(text: str) -> Any:
    raise ValueError(text)


def finite(text: str) -> Number:
    return refuse(text) if abs(float(text)) == float("inf") else Number(text)


DECODER = json.JSONDecoder(
    object_pairs_hook=strict, parse_constant=refuse, parse_int=lambda text: Number(str(int(text))), parse_float=finite
)


def is_text(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(is_text, [*value, *value.values()]))
    if isinstance(value, list):
        return all(map(is_text, value))
    return not isinstance(value, str) or not re.search("[\0\ud800-\udfff]", value)


def value_at(text: str, start: int) -> tuple[Any, int]:
    value, end = DECODER.raw_decode(text, start)
    if not is_text(value):
        raise ValueError("no text")
    return value, end


def blank(text: str) -> bool:
    return not text.strip(" \t\r\n")


def json_line(text: str) -> dict[str, Any]:
    stripped = text.strip(" \t\r\n")
    value, end = value_at(stripped, 0)
    if end < len(stripped) or not isinstance(value, dict):
        raise ValueError("no object, or more than one")
    return value


def jsonl_records(data: bytes) -> Iterator[Record]:
    for text, number, whole in texts_in(data):
        if blank(text) and whole:
            continue
        try:
            if not whole:
                raise ValueError
            yield json_line(text), number
        except (ValueError, RecursionError):
            raise Refused(number) from None


def spread_records(data: bytes) -> Iterator[Record]:
    """The objects of a whole file, one after the other or in a list; where they stand is not told."""
    lines = list(texts_in(data))
    text = "".join(line for line, _, _ in lines)
    if not all(whole for _, _, whole in lines):
        raise Refused
    try:
        if text.strip(" \t\r\n").startswith("["):
            value, end = value_at(text, len(text) - len(text.lstrip(" \t\r\n")))
            if not blank(text[end:]):
                raise ValueError
            values = value
        else:
            values, at = [], 0
            while not blank(text[at:]):
                value, at = value_at(text, at + len(text[at:]) - len(text[at:].lstrip(" \t\r\n")))
                values.append(value)
        if not all(isinstance(value, dict) for value in values):
            raise ValueError
    except (ValueError, RecursionError):
        raise Refused from None
    yield from ((value, 0) for value in values)


def csv_cells(data: bytes) -> Iterator[tuple[list[str], int, int, bool]]:
    """RFC 4180: the cells of each row, its first and last line, and whether all of it is text."""
    lines = iter(texts_in(data))
    for text, first, whole in lines:
        last, cells, cell, at = first, [], "", 0
        while True:
            if text[at : at + 1] == '"' and not cell:
                at += 1
                while True:  # to the quote that closes
                    if at == len(text):
                        text, last, more = next(lines, ("", 0, True))
                        if not last:
                            raise Refused(first)
                        at, whole = 0, whole and more
                    elif text[at : at + 2] == '""':
                        cell, at = cell + '"', at + 2
                    elif text[at] == '"':
                        at += 1
                        break
                    else:
                        cell, at = cell + text[at], at + 1
                if not re.match(r",|\r?\n|\Z|\r\Z", text[at:]):
                    raise Refused(first, last)
            else:
                plain = re.match(r"[^,\r\n]*", text[at:])
                assert plain
                cell, at = cell + plain[0], at + plain.end()
                if not re.match(r",|\r?\n|\Z|\r\Z", text[at:]):
                    raise Refused(first, last)
            cells.append(cell)
            cell = ""
            if text[at : at + 1] != ",":
                break
            at += 1
        yield [] if cells == [""] and blank(text) and '"' not in text else cells, first, last, whole


def tsv_cells(data: bytes) -> Iterator[tuple[list[str], int, int, bool]]:
    for text, number, whole in texts_in(data):
        line = text.removesuffix("\n").removesuffix("\r")
        yield line.split("\t") if line else [], number, number, whole


def cell_records(rows: Iterator[tuple[list[str], int, int, bool]], others: str) -> Iterator[Record]:
    header: list[str] = []
    for cells, first, last, whole in rows:
        if not whole:
            raise Refused(first, last)
        if not cells:
            continue
        if header:
            if len(cells) != len(header) or cells == header:
                raise Refused(first, last)
            yield dict(zip(header, cells, strict=True)), first
            continue
        header = cells
        if len(set(header)) < len(header) or not all(name.strip() for name in header):
            raise Refused(first, last)
        if len(header) == 1 and any(mark in header[0] for mark in others):
            raise Refused(first, last)
    if not header:
        raise Refused(1)


READERS: dict[str, Callable[[bytes], Iterator[Record]]] = {
    ".jsonl": jsonl_records,
    ".json": spread_records,
    ".csv": lambda data: cell_records(csv_cells(data), "\t;|"),
    ".tsv": lambda data: cell_records(tsv_cells(data), ";|,"),
}


def unpacked(data: bytes) -> bytes:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        raise Refused from None


def texts(value: Any) -> list[str]:
    """What a column's value is filled in as."""
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return value
    if isinstance(value, bool):
        return ["true" if value else "false"]
    if isinstance(value, str | Number):
        return [value if isinstance(value, str) else value.text]
    raise ValueError(value)


def kinds(value: Any) -> set[type]:
    if isinstance(value, list):
        return set().union(*map(kinds, value))
    return set() if value is None or value == "" else {type(value)}


def examples_in(records: Iterator[Record]) -> list[tuple[tuple[str, ...], int]]:
    """Source and targets of every row, by the templates {a} and {b}. Raises Refused."""
    found: list[tuple[tuple[str, ...], int]] = []
    seen: dict[str, set[type]] = {}
    for fields, line in records:
        try:
            for name in "ab":
                kind = kinds(fields[name])
                if kind and seen.setdefault(name, kind) != kind:
                    raise ValueError
            targets = texts(fields["b"])
            if not targets[0].strip():
                raise ValueError
            found.append(((" ".join(texts(fields["a"])), *targets), line))
        except (KeyError, ValueError):
            raise Refused(*[line] * bool(line)) from None
    if not found:
        raise Refused
    return found

"""Files to rows, strictly: nothing is dropped or changed in silence, and every complaint names file and line.

Text formats are read line by line, .json as a whole, .parquet and .arrow batch by batch. Values stay what the file says:
cells of CSV and TSV are strings ("NA", "001"), JSON integers are exact, no text is normalised.
"""

import gzip
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from llmft.config.schema import Data, TextBy
from llmft.data.arrow_rows import arrow_rows
from llmft.data.cell_rows import csv_rows, tsv_rows
from llmft.data.json_rows import json_rows, jsonl_rows
from llmft.data.row import BadRow, Lines, Row
from llmft.data.text_rows import txt_rows
from llmft.errors import DataError

TEXT_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt")
TABLE_SUFFIXES = (".parquet", ".arrow", ".feather")
SUFFIXES = TEXT_SUFFIXES + TABLE_SUFFIXES


@dataclass(frozen=True)
class Layout:
    """What files do not say of themselves: the key of a JSON file's rows, names of columns, what a row of a text is.

    With `columns`, .csv and .tsv have no line of names, and a .txt is read as a .tsv.
    """

    rows_under: str | None = None
    columns: tuple[str, ...] = ()
    text_by: TextBy = TextBy.line


AS_USUAL = Layout()


def layout_of(data: Data) -> Layout:
    """Return the layout that task.data gives its files. Raises DataError if two columns have one name, or one has none."""
    for place, name in enumerate(data.columns):
        if not name.strip() or name in data.columns[:place]:
            raise DataError(
                f"task.data.columns=[{','.join(data.columns)}]: column {place + 1} is named {name!r}; "
                "expected a name for each, all different. Correct the names."
            )
    return Layout(data.rows_under, tuple(data.columns), data.text_by)


def read(
    path: Path,
    layout: Layout = AS_USUAL,
    max_bad_rows: int = 0,
    bad_rows: list[BadRow] | None = None,
    every_line: bool = False,
) -> Iterator[Row]:
    """Yield the rows of a file as `readable` does."""
    return readable(scan(path, layout, every_line), max_bad_rows, [] if bad_rows is None else bad_rows)


def readable(found: Iterable[Row | BadRow], max_bad_rows: int, bad_rows: list[BadRow]) -> Iterator[Row]:
    """Yield the rows; append those that cannot be read to `bad_rows`. Raises DataError once it holds more than `max_bad_rows`."""
    for row in found:
        if isinstance(row, Row):
            yield row
            continue
        bad_rows.append(row)
        if len(bad_rows) > max_bad_rows:
            raise DataError(
                f"{row.where}: {row.reason} Fix the row, or raise task.data.max_bad_rows={max_bad_rows} to leave it out."
            )


def kind_of(path: Path) -> str | None:
    """Return the ending that says how to read `path`, .gz taken off; None if there is no reader for it."""
    endings = [ending.lower() for ending in path.suffixes]
    zipped = endings[-1:] == [".gz"]
    ending = "".join(endings[:-1][-1:] if zipped else endings[-1:])
    return ending if ending in (TEXT_SUFFIXES if zipped else SUFFIXES) else None


def scan(path: Path, layout: Layout = AS_USUAL, every_line: bool = False) -> Iterator[Row | BadRow]:
    """Yield every record of a file, readable or not; of a txt file empty lines too if `every_line` is set.

    Raises DataError where the rest of the file cannot be read.
    """
    kind = kind_of(path)
    if kind is None:
        raise DataError(f"{path}: unknown ending {path.suffix!r}; expected one of {', '.join(SUFFIXES)}, text also with .gz.")
    try:
        if kind in TABLE_SUFFIXES:
            yield from arrow_rows(path, kind)
            return
        with open_binary(path) as stream:
            yield from scan_stream(stream, str(path), kind, layout, every_line)
    except OSError as err:
        raise DataError(f"{path}: cannot be read: {err.strerror or err}. Name a readable file.") from err


def open_binary(path: Path) -> BinaryIO:
    """Open a file of text for its bytes, unpacked if it ends in .gz. Raises OSError."""
    return cast(BinaryIO, gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb"))


def scan_stream(
    stream: BinaryIO, name: str, kind: str, layout: Layout = AS_USUAL, every_line: bool = False
) -> Iterator[Row | BadRow]:
    """Yield every record of an open text file; `kind` is one of TEXT_SUFFIXES, `name` stands for the file in messages."""
    lines = Lines(stream, name)
    if kind in (".jsonl", ".ndjson"):
        return jsonl_rows(lines)
    if kind == ".json":
        return json_rows(lines, layout.rows_under)
    if kind == ".csv":
        return csv_rows(lines, layout.columns)
    if kind == ".tsv" or layout.columns:
        return tsv_rows(lines, layout.columns)
    return txt_rows(lines, layout.text_by, every_line)

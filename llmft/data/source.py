"""Files to rows, strictly: nothing is dropped or changed in silence, and every complaint names file and line.

Text formats are read line by line, .json as a whole, .parquet and .arrow batch by batch. Values stay what the file says:
cells of CSV and TSV are strings ("NA", "001"), JSON integers are exact.
"""

import csv
import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from llmft.data.json_rows import json_rows, jsonl_rows
from llmft.data.row import BadRow, Lines, Row
from llmft.data.strict_json import problem_in
from llmft.errors import DataError

TEXT_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt")
TABLE_SUFFIXES = (".parquet", ".arrow", ".feather")
SUFFIXES = TEXT_SUFFIXES + TABLE_SUFFIXES

csv.field_size_limit(2**31 - 1)  # the default of 128 KiB refuses long documents


def read(
    path: Path,
    rows_under: str | None = None,
    max_bad_rows: int = 0,
    bad_rows: list[BadRow] | None = None,
    every_line: bool = False,
) -> Iterator[Row]:
    """Yield the rows of a file as `readable` does."""
    return readable(scan(path, rows_under, every_line), max_bad_rows, [] if bad_rows is None else bad_rows)


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


def scan(path: Path, rows_under: str | None = None, every_line: bool = False) -> Iterator[Row | BadRow]:
    """Yield every record of a file, readable or not; of a txt file empty lines too if `every_line` is set.

    Raises DataError where the rest of the file cannot be read.
    """
    kind = kind_of(path)
    if kind is None:
        raise DataError(f"{path}: unknown ending {path.suffix!r}; expected one of {', '.join(SUFFIXES)}, text also with .gz.")
    try:
        if kind in TABLE_SUFFIXES:
            yield from table_rows(path, kind)
            return
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as stream:
            yield from scan_stream(cast(BinaryIO, stream), str(path), kind, rows_under, every_line)
    except OSError as err:
        raise DataError(f"{path}: cannot be read: {err.strerror or err}. Name a readable file.") from err


def scan_stream(
    stream: BinaryIO, name: str, kind: str, rows_under: str | None = None, every_line: bool = False
) -> Iterator[Row | BadRow]:
    """Yield every record of an open text file; `kind` is one of TEXT_SUFFIXES, `name` stands for the file in messages."""
    lines = Lines(stream, name)
    if kind in (".jsonl", ".ndjson"):
        return jsonl_rows(lines)
    if kind == ".json":
        return json_rows(lines, rows_under)
    if kind == ".csv":
        return csv_rows(lines)
    return tsv_rows(lines) if kind == ".tsv" else txt_rows(lines, every_line)


def csv_rows(lines: Lines) -> Iterator[Row | BadRow]:
    """Yield the rows below a header, by RFC 4180; empty lines are passed over.

    Raises DataError for broken quoting: where the next row starts is a guess then.
    """
    reader = csv.reader(lines, strict=True)
    header: list[str] = []
    while True:
        where = f"{lines.name}:{lines.number + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as err:
            found = "a quoted cell is never closed" if "end of data" in str(err) else f"broken quoting or line end: {err}"
            raise DataError(
                f"{where}: the row that starts here: {found}; expected CSV as in RFC 4180. Repair the file."
            ) from err
        if cells is None:
            break
        fault = lines.take_fault()
        if not header and cells:
            header = checked_header(cells, where, fault)
        elif fault:
            yield fault
        elif cells:
            yield row_of_cells(header, cells, where, lines.complete)
    if not header:
        raise DataError(f"{lines.name}:1: the file is empty; expected a line with the columns' names. Name another file.")


def tsv_rows(lines: Lines) -> Iterator[Row | BadRow]:
    """Yield the rows below a header, cells apart by tabs; quotes are characters like any other."""
    header: list[str] = []
    for line in lines:
        where = f"{lines.name}:{lines.number}"
        fault = lines.take_fault()
        text = without_end(line)
        if not header and text:
            header = checked_header(text.split("\t"), where, fault)
        elif fault:
            yield fault
        elif text:
            yield row_of_cells(header, text.split("\t"), where, lines.complete)
    if not header:
        raise DataError(f"{lines.name}:1: the file is empty; expected a line with the columns' names. Name another file.")


def txt_rows(lines: Lines, every_line: bool = False) -> Iterator[Row | BadRow]:
    """Yield one row per line, its text in the column `text`; empty lines are passed over unless `every_line` is set."""
    for line in lines:
        fault = lines.take_fault()
        text = without_end(line)
        if fault:
            yield fault
        elif every_line or text.strip():
            yield Row({"text": text}, f"{lines.name}:{lines.number}")


def without_end(line: str) -> str:
    """Return `line` without the LF or CRLF that ends it."""
    return line.removesuffix("\n").removesuffix("\r")


def checked_header(names: list[str], where: str, fault: BadRow | None) -> list[str]:
    """Return the columns' names. Raises DataError if one is empty or stands twice: cells would have no place."""
    if fault:
        raise DataError(f"{fault.where}: {fault.reason} Repair the line with the columns' names.")
    for place, name in enumerate(names):
        if not name.strip():
            raise DataError(f"{where}: column {place + 1} has no name; expected a name for each. Repair the first line.")
        if name in names[:place]:
            raise DataError(f"{where}: two columns are named {name!r}; expected different names. Rename one.")
    return names


def row_of_cells(header: list[str], cells: list[str], where: str, complete: bool) -> Row | BadRow:
    """Return the cells under their columns' names, if there is one for each."""
    if len(cells) == len(header):
        return Row(dict(zip(header, cells, strict=True)), where)
    cut = "" if complete or len(cells) > len(header) else " The file ends within this row: it may have been cut off."
    return BadRow(where, f"{len(cells)} cells; expected {len(header)}: {', '.join(header)}.{cut}")


def table_rows(path: Path, kind: str) -> Iterator[Row | BadRow]:
    """Yield the rows of a parquet or arrow file (the file format, or the stream format that `datasets` writes)."""
    import pyarrow  # here: most runs read text, and this takes a quarter of a second
    import pyarrow.parquet

    try:
        with pyarrow.memory_map(str(path)) as mapped:
            if kind == ".parquet":
                table = pyarrow.parquet.ParquetFile(mapped)
                names, batches = table.schema_arrow.names, table.iter_batches(batch_size=1024)
            else:
                table = open_arrow(mapped)
                names, batches = table.schema.names, arrow_batches(table)
            checked_header(names, f"{path}:schema", None)
            number = 0
            for batch in batches:
                for fields in batch.to_pylist():
                    number += 1
                    where = f"{path}:row {number}"
                    problem = problem_in(fields)
                    yield BadRow(where, f"{problem}; expected text.") if problem else Row(fields, where)
    except (pyarrow.ArrowException, UnicodeDecodeError) as err:
        raise DataError(f"{path}: not a readable {kind[1:]} file: {err}. Fetch or write the file again.") from err


def open_arrow(mapped: Any) -> Any:
    """Open an arrow file in either of its two formats."""
    import pyarrow.ipc  # as above

    try:
        return pyarrow.ipc.open_file(mapped)
    except pyarrow.ArrowInvalid:
        mapped.seek(0)
        return pyarrow.ipc.open_stream(mapped)


def arrow_batches(table: Any) -> Iterator[Any]:
    """Yield the record batches of an opened arrow file or stream, one in memory at a time."""
    if hasattr(table, "num_record_batches"):
        return (table.get_batch(index) for index in range(table.num_record_batches))
    return iter(table)

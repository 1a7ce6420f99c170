"""Rows of .csv (RFC 4180) and .tsv (cells apart by tabs, quotes are characters like any other)."""

import csv
from collections.abc import Iterator, Sequence

from llmft.data.row import BadRow, Lines, Row, without_end
from llmft.data.strict_json import shortened
from llmft.errors import DataError

csv.field_size_limit(2**31 - 1)  # the default of 128 KiB refuses long documents
TAB = "\t"
SEPARATORS = {TAB: "tabs", ";": "semicolons", "|": "bars", ",": "commas"}


def csv_rows(lines: Lines, columns: Sequence[str] = ()) -> Iterator[Row | BadRow]:
    """Yield the rows below a header, or all rows under the given column names; empty lines are passed over.

    Raises DataError for broken quoting: where the next row starts is a guess then.
    """
    reader = csv.reader(lines, strict=True)
    header = list(columns)
    first = True
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
        if first and cells:
            first = False
            if not columns:
                header = named_header(cells, ",", where, fault)
                continue
            if not fault:
                check_first(header, cells, where)
        if fault:
            yield fault
        elif cells:
            yield row_of_cells(header, cells, where, lines.complete)
    if first:
        raise empty(lines, columns)


def tsv_rows(lines: Lines, columns: Sequence[str] = ()) -> Iterator[Row | BadRow]:
    """Yield the rows below a header, or all rows under the given column names; empty lines are passed over."""
    header = list(columns)
    first = True
    for line in lines:
        where = f"{lines.name}:{lines.number}"
        fault = lines.take_fault()
        text = without_end(line)
        cells = text.split("\t")
        if first and text:
            first = False
            if not columns:
                header = named_header(cells, TAB, where, fault)
                continue
            if not fault:
                check_first(header, cells, where)
        if fault:
            yield fault
        elif text:
            yield row_of_cells(header, cells, where, lines.complete)
    if first:
        raise empty(lines, columns)


def empty(lines: Lines, columns: Sequence[str]) -> DataError:
    """Return what to raise for a file without a line."""
    expected = "rows" if columns else "a line with the columns' names"
    return DataError(f"{lines.name}:1: the file is empty; expected {expected}. Name another file.")


def named_header(names: list[str], separator: str, where: str, fault: BadRow | None) -> list[str]:
    """Return the columns' names of a table of cells. Raises DataError as `checked_header`, and for cells apart by something else."""
    other = next((mark for mark in SEPARATORS if mark in names[0]), None) if len(names) == 1 else None
    if other and not fault:
        raise DataError(
            f"{where}: one column, named {shortened(names[0])}; expected names apart by {SEPARATORS[separator]}, and found "
            f"{SEPARATORS[other]}. {'Name the file .tsv' if other == TAB else 'Write it with the other separator'}."
        )
    return checked_header(names, where, fault)


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


def check_first(columns: list[str], cells: list[str], where: str) -> None:
    """Hold the first row against task.data.columns. Raises DataError if the number differs, or if it is a header after all."""
    if cells == columns:
        raise DataError(f"{where}: the file has a line with the columns' names. Remove task.data.columns.")
    if len(cells) != len(columns):
        raise DataError(
            f"{where}: {len(cells)} cells; task.data.columns has {len(columns)} names: {', '.join(columns)}. "
            "Name every column of the file."
        )


def row_of_cells(header: list[str], cells: list[str], where: str, complete: bool) -> Row | BadRow:
    """Return the cells under their columns' names, if there is one for each."""
    if cells == header:
        return BadRow(where, "the columns' names stand here again, as where files were joined; expected a row.")
    if len(cells) == len(header):
        return Row(dict(zip(header, cells, strict=True)), where)
    cut = "" if complete or len(cells) > len(header) else " The file ends within this row: it may have been cut off."
    return BadRow(where, f"{len(cells)} cells; expected {len(header)}: {', '.join(header)}.{cut}")

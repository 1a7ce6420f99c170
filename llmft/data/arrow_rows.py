"""Rows of .parquet and .arrow files (the file format, or the stream format that `datasets` writes), batch by batch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmft.data.cell_rows import checked_header
from llmft.data.row import BadRow, Row
from llmft.data.strict_json import problem_in
from llmft.errors import DataError


def arrow_rows(path: Path, kind: str) -> Iterator[Row | BadRow]:
    """Yield the rows of a file; `kind` is its ending. Raises DataError where it is damaged."""
    import pyarrow  # here: most runs read text, and this takes a quarter of a second
    import pyarrow.parquet

    try:
        with pyarrow.memory_map(str(path)) as mapped:
            if kind == ".parquet":
                table = pyarrow.parquet.ParquetFile(mapped, page_checksum_verification=True)
                names, batches = table.schema_arrow.names, table.iter_batches(batch_size=1024)
            else:
                table = open_arrow(mapped)
                names, batches = table.schema.names, arrow_batches(table)
            checked_header(names, f"{path}:schema", None)
            number = 0
            for batch in batches:
                batch.validate(full=True)  # damaged lengths would read beyond the file, and end the process
                for fields in batch.to_pylist():
                    number += 1
                    where = f"{path}:row {number}"
                    problem = problem_in(fields)
                    yield BadRow(where, f"{problem}; expected text.") if problem else Row(fields, where)
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as err:
        if isinstance(err, OSError) and err.errno:  # the system's; pyarrow's own have no number
            raise
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

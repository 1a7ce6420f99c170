"""Parallel text: files that belong together line by line, one for each column, of any name and also packed as .gz."""

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmft.data.row import BadRow, Lines, Row, refuse_foreign, without_end
from llmft.data.source import open_binary
from llmft.errors import DataError
from llmft.runs.provenance import hash_file

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class ParallelPiece:
    """Text files by the column that their lines become."""

    paths: Mapping[str, Path]

    @property
    def name(self) -> str:
        return " + ".join(map(str, self.paths.values()))

    @property
    def format(self) -> str:
        return f"parallel {json.dumps(list(self.paths))}"

    def scan(self) -> Iterator[Row | BadRow]:
        """Yield a row per line that holds text in every file; a line that is blank in all is passed over, in some it is bad.

        Raises DataError where a file cannot be read, or if one has more lines than another: from some line on they are apart.
        """
        check_lengths(self.paths)
        with ExitStack() as stack:
            try:
                streams = [stack.enter_context(open_binary(path)) for path in self.paths.values()]
            except OSError as err:
                raise unreadable(Path(err.filename), err) from err
            files = [Lines(stream, str(path)) for stream, path in zip(streams, self.paths.values(), strict=True)]
            for together in zip(*files, strict=True):
                faults = [fault for fault in [lines.take_fault() for lines in files] if fault]
                texts = [without_end(line) for line in together]
                where = f"{files[0].name}:{files[0].number}"
                blank = [lines.name for lines, text in zip(files, texts, strict=True) if not text.strip()]
                if faults:
                    yield faults[0]
                elif not blank:
                    yield Row(dict(zip(self.paths, texts, strict=True)), where)
                elif len(blank) < len(files):
                    yield BadRow(where, f"the line is blank in {' and '.join(blank)}, not in the rest; expected text in all.")

    def record(self) -> dict[str, Any]:
        sizes = [path.stat().st_size for path in self.paths.values()]
        hashes = [hash_file(path) for path in self.paths.values()]
        return {"path": self.name, "bytes": sum(sizes), "sha256": hashlib.sha256(json.dumps(hashes).encode()).hexdigest()}


def open_parallel(files: Mapping[str, str], key: str) -> ParallelPiece:
    """Return the piece for {column: file}, given as `key`. Raises DataError if there is no such file."""
    paths = {column: Path(name).expanduser() for column, name in files.items()}
    for column, path in paths.items():
        if not path.is_file():
            raise DataError(
                f"{key}: there is no file {path} for the column {column!r}; expected a text file for each column, "
                "a text a line. Correct the name."
            )
    return ParallelPiece(paths)


def check_lengths(paths: Mapping[str, Path]) -> None:
    """Raise DataError unless all files have as many lines."""
    counts = {str(path): count_lines(path) for path in paths.values()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name} has {count} lines" for name, count in counts.items())
        raise DataError(f"{found}; parallel files need one line for each other. Find the line where they part, and repair it.")


def count_lines(path: Path) -> int:
    """Return how many lines a file has, a last one without an end included. Raises DataError if it cannot be read or is no text."""
    count, last, first = 0, b"\n", True
    try:
        with open_binary(path) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                if first:  # of such a file, the number of lines would say nothing
                    refuse_foreign(chunk, str(path))
                first = False
                count += chunk.count(b"\n")
                last = chunk
    except (OSError, EOFError, zlib.error) as err:
        raise unreadable(path, err) from err
    return count + (not last.endswith(b"\n"))


def unreadable(path: Path, error: Exception) -> DataError:
    """Return what to raise for a file that cannot be read."""
    return DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}. Name a readable file.")

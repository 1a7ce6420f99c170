"""A record as it stands in its file, and the lines it is read from."""

import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO

from llmft.errors import DataError

BOM = b"\xef\xbb\xbf"
# What files wrongly named as text begin with; the longer UTF-32 mark starts like the UTF-16 one, so it comes first.
NOT_TEXT = {
    b"\xff\xfe\x00\x00": "UTF-32 text; convert it: iconv -f UTF-32 -t UTF-8",
    b"\x00\x00\xfe\xff": "UTF-32 text; convert it: iconv -f UTF-32 -t UTF-8",
    b"\xff\xfe": "UTF-16 text; convert it: iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "UTF-16 text; convert it: iconv -f UTF-16 -t UTF-8",
    b"\x1f\x8b": "gzip; give its name the ending .gz",
    b"PK\x03\x04": "a zip archive; unpack it",
    b"PAR1": "parquet; give its name the ending .parquet",
    b"ARROW1": "arrow; give its name the ending .arrow",
    b"version https://git-lfs": "a Git LFS pointer and not the data; fetch that: git lfs pull",
}


@dataclass(frozen=True)
class Row:
    """One record of a data set, unchanged; `where` names it for error messages: path:line, or path:row N."""

    fields: dict[str, Any]
    where: str


@dataclass(frozen=True)
class BadRow:
    """A record that cannot be read: where it starts, and what was found and expected there."""

    where: str
    reason: str


def without_end(line: str) -> str:
    """Return `line` without the LF or CRLF that ends it."""
    return line.removesuffix("\n").removesuffix("\r")


def refuse_foreign(start: bytes, name: str) -> None:
    """Raise DataError if a file that begins like this is no text."""
    for mark, what in NOT_TEXT.items():
        if start.startswith(mark):
            raise DataError(f"{name}:1: expected UTF-8 text, but the file is {what}.")


class Lines:
    """The lines of a UTF-8 file, ended by LF only and with their ends kept; a byte order mark at the start is dropped.

    Bytes that are no UTF-8 do not stop the reading, because only the reader of the format knows where the record ends
    that is spoiled: it asks `take_fault` after each record.
    """

    def __init__(self, stream: BinaryIO, name: str):
        self.stream = stream
        self.name = name
        self.number = 0  # of the line given out last, from 1
        self.complete = True  # whether that line had an end
        self._offset = 0
        self._fault: BadRow | None = None

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        """Return the next line. Raises DataError where the file is no text at all, or its compression is damaged."""
        try:
            raw = self.stream.readline()
        except (EOFError, zlib.error, OSError) as err:
            raise DataError(f"{self.name}:{self.number + 1}: cannot be read: {err}. Fetch the file again.") from err
        if not raw:
            raise StopIteration
        self.number += 1
        self.complete = raw.endswith(b"\n")
        if self.number == 1:
            refuse_foreign(raw, self.name)
        text = self._decoded(raw)
        self._offset += len(raw)
        return text.removeprefix("\ufeff") if self.number == 1 else text

    def take_fault(self) -> BadRow | None:
        """Return what is wrong with the bytes given out since the last call, if anything."""
        fault, self._fault = self._fault, None
        return fault

    def _decoded(self, raw: bytes) -> str:
        where = f"{self.name}:{self.number}"
        try:
            text = raw.decode()
        except UnicodeDecodeError as err:
            reason = f"byte 0x{raw[err.start]:02x} at byte offset {self._offset + err.start} of the file is not UTF-8; expected UTF-8 text."
            self._fault = self._fault or BadRow(where, reason)
            return raw.decode(errors="replace")
        if "\0" in text:
            reason = f"NUL character at byte offset {self._offset + raw.index(0)} of the file; expected text."
            self._fault = self._fault or BadRow(where, reason)
        return text

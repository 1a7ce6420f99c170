"""A file of JSON lines that only grows; what was appended survives the death of the process."""

import json
import math
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from llmft.errors import LlmftError
from llmft.runs import disk, durable


class Journal:
    """Append rows to `path`, one write each. A last line torn by a crash is cut off when the file is opened again."""

    def __init__(self, path: Path):
        self.path = path
        with durable.explained(path):
            durable.make_folder(path.parent)
            self._file = disk.File(path, append=True)
            try:
                self._file.truncate(_whole_bytes(self._file.descriptor))
                disk.sync(path.parent)
            except BaseException:
                self._file.close()
                raise

    def append(self, row: dict[str, Any]) -> None:
        """Add `row`. NaN and infinity become null, which JSON has; a row that does not fit on the disk leaves no trace."""
        line = (json.dumps(_finite(row), ensure_ascii=False, allow_nan=False) + "\n").encode()
        before = os.fstat(self._file.descriptor).st_size
        with durable.explained(self.path):
            try:
                self._file.write(line)
            except OSError:
                self._file.truncate(before)
                raise

    def sync(self) -> None:
        """Wait until all rows are on the disk: with a checkpoint, whose steps must not be missing after a power cut."""
        with durable.explained(self.path):
            self._file.sync()

    def close(self) -> None:
        """Flush to the disk and close; a second call does nothing."""
        if self._file.descriptor >= 0:
            try:
                self.sync()
            finally:
                self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @staticmethod
    def read(path: Path) -> list[dict[str, Any]]:
        """The rows of `path`, without a torn last line. Raises LlmftError if another line is not JSON."""
        return [json.loads(line) for line in _lines(path)]

    @staticmethod
    def keep(path: Path, predicate: Callable[[dict[str, Any]], bool]) -> None:
        """Rewrite `path`, which nobody has open, with the rows for which `predicate` holds.

        A power cut may spoil rows that were not flushed yet, not only the last one: those behind the last one kept go in silence.
        Raises LlmftError if a line before a row that is kept is not JSON.
        """
        lines, spoilt = [], None
        for number, line in enumerate(_split(path), 1):
            try:
                row = json.loads(line)
            except ValueError as error:
                spoilt = spoilt or _not_json(path, number, error)
                continue
            if predicate(row):
                if spoilt:
                    raise spoilt
                lines.append(line)
        durable.write_bytes(path, b"".join(line + b"\n" for line in lines))


def _lines(path: Path) -> list[bytes]:
    lines = _split(path)
    for number, line in enumerate(lines, 1):
        try:
            json.loads(line)
        except ValueError as error:
            raise _not_json(path, number, error) from error
    return lines


def _split(path: Path) -> list[bytes]:
    """The lines, without a torn last one."""
    return path.read_bytes().split(b"\n")[:-1]


def _not_json(path: Path, number: int, error: ValueError) -> LlmftError:
    return LlmftError(
        f"{path}:{number}: not a line of JSON ({error}). The file was changed by something else; restore or remove it."
    )


def _whole_bytes(descriptor: int) -> int:
    """Length of the file up to its last line end."""
    if os.fstat(descriptor).st_size == 0:
        return 0
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as data:
        return data.rfind(b"\n") + 1


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value

"""A file of JSON lines that only grows; what was appended survives the death of the process."""

import errno
import json
import math
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from llmft.errors import LlmftError
from llmft.runs import durable


class Journal:
    """Append rows to `path`, one write each. A last line torn by a crash is cut off when the file is opened again."""

    def __init__(self, path: Path):
        self.path = path
        with durable.explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            os.ftruncate(self._descriptor, _whole_bytes(self._descriptor))

    def append(self, row: dict[str, Any]) -> None:
        """Add `row`. NaN and infinity become null, which JSON has; a row that does not fit on the disk leaves no trace."""
        line = (json.dumps(_finite(row), ensure_ascii=False, allow_nan=False) + "\n").encode()
        before = os.fstat(self._descriptor).st_size
        with durable.explained(self.path):
            try:
                if os.write(self._descriptor, line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                os.ftruncate(self._descriptor, before)
                raise

    def close(self) -> None:
        """Flush to the disk and close; a second call does nothing."""
        if self._descriptor >= 0:
            os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

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
        """Rewrite `path`, which nobody has open, with the rows for which `predicate` holds."""
        lines = [line for line in _lines(path) if predicate(json.loads(line))]
        durable.write_bytes(path, b"".join(line + b"\n" for line in lines))


def _lines(path: Path) -> list[bytes]:
    *lines, _torn = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            json.loads(line)
        except ValueError as error:
            raise LlmftError(
                f"{path}:{number}: not a line of JSON ({error}). The file was changed by something else; restore or remove it."
            ) from error
    return lines


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

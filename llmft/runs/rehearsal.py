"""For tests only: writes that fail on purpose, and a record of all of them.

LLMFT_FAILPOINT=OPERATION:N:HOW or OPERATION:N:HOW:TEXT makes the N-th operation of the process fail, counted from 1.
OPERATION is open, write, truncate, fsync, rename, symlink, mkdir, rmdir, unlink, chmod, or * for any; with TEXT only those
count whose path contains it; N+ fails from the N-th on. HOW is
kill (the process sends itself SIGKILL before the operation), ENOSPC, EIO or another name of an errno (instead of it), or
short (half of the bytes are written, then the disk is full; of an operation that writes no bytes: ENOSPC).

LLMFT_OPERATIONS=FILE appends a line of JSON to FILE for each operation that succeeded, in their order: op, path, and
to (rename), target (symlink), size (truncate, and the bytes written); the bytes themselves go to FILE.bytes, one after another.
"""

import errno
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

FAILPOINT = "LLMFT_FAILPOINT"
OPERATIONS = "LLMFT_OPERATIONS"

_order = threading.RLock()  # the record has the order in which things were done
_counted: dict[str, int] = {}  # failpoint -> operations that it has counted


def do(operation: str, path: Path, call: Callable[..., Any], *arguments: Any) -> Any:
    """Do what `disk` asked for, or fail as the environment wants it."""
    with _order:
        how = _fault(operation, path)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "short":
            if operation == "write":
                descriptor, data = arguments
                _record(operation, path, (descriptor, data[: call(descriptor, data[: len(data) // 2])]))
            how = "ENOSPC"
        if how is not None:
            number = getattr(errno, how)
            raise OSError(number, os.strerror(number), str(path))
        result = call(*arguments)
        _record(operation, path, (arguments[0], arguments[1][:result]) if operation == "write" else arguments)
        return result


def _fault(operation: str, path: Path) -> str | None:
    """How this operation is to fail, if at all."""
    asked = os.environ.get(FAILPOINT)
    if not asked:
        return None
    wanted, number, how, *text = asked.split(":", 3)
    if wanted not in ("*", operation) or (text and text[0] not in str(path)):
        return None
    _counted[asked] = _counted.get(asked, 0) + 1
    first = int(number.removesuffix("+"))
    return how if _counted[asked] == first or (number.endswith("+") and _counted[asked] > first) else None


def _record(operation: str, path: Path, arguments: tuple[Any, ...]) -> None:
    record = os.environ.get(OPERATIONS)
    if not record:
        return
    row: dict[str, Any] = {"op": operation, "path": os.path.abspath(path)}
    if operation == "write":
        row["size"] = len(arguments[1])
        _append(f"{record}.bytes", arguments[1])
    elif operation == "truncate":
        row["size"] = arguments[1]
    elif operation == "rename":
        row["to"] = os.path.abspath(arguments[1])
    elif operation == "symlink":
        row["target"] = arguments[0]
    _append(record, json.dumps(row).encode() + b"\n")


def _append(path: str, data: bytes | memoryview) -> None:
    with open(path, "ab") as out:
        out.write(data)

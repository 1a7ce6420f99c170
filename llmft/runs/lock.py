"""One writer per run directory: a lock that the system gives back when its holder dies, however it dies."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmft.errors import LlmftError, RunInUse
from llmft.runs import durable

FILE = ".lock"
PATIENCE_S = 0.3
"""How long `acquire` waits for a holder: one that is about to end, or one that has yet to write its name."""


class Lock:
    """The right to write in `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._descriptor: int | None = None
        # A forked child (a data loader's worker) that outlives us must not keep the run locked.
        os.register_at_fork(after_in_child=self._close)

    def acquire(self) -> None:
        """Take the lock. Raises RunInUse naming the holder, LlmftError if the file system has no locks."""
        path = self.folder / FILE
        until = time.monotonic() + PATIENCE_S
        with durable.explained(path):
            while True:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
                if _lock(descriptor, path) and _is_same(descriptor, path):
                    break
                os.close(descriptor)
                # None: what stood in the way was only somebody who looked, which `holder` does by taking the lock
                if time.monotonic() > until and (who := holder(self.folder)) is not None:
                    raise RunInUse(
                        f"{self.folder} is in use by process {who['pid']} on {who['host']} since {who['start']}. "
                        "Wait for it, stop it, or name another output_dir."
                    )
                time.sleep(0.02)
            self._descriptor = descriptor
            who = {"pid": os.getpid(), "host": socket.gethostname(), "start": datetime.now(UTC).isoformat(timespec="seconds")}
            # One write, then the cut, and readers look at the first line only: none sees half a holder.
            line = json.dumps(who).encode() + b"\n"
            os.pwrite(descriptor, line, 0)
            os.ftruncate(descriptor, len(line))

    def release(self) -> None:
        """Give the lock back; a second call does nothing. The file stays: removing it would let two in."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):  # a full disk; the name of a holder who is gone does no harm
                os.ftruncate(self._descriptor, 0)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def holder(folder: Path) -> dict[str, Any] | None:
    """Who holds the lock of `folder`: pid, host, start (ISO 8601, UTC); None if it is free."""
    path = folder / FILE
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        try:
            return json.loads(os.pread(descriptor, 4096, 0).partition(b"\n")[0])
        except ValueError:
            return _unknown()  # taken this instant, its name not yet written
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in {errno.ENOLCK, errno.ENOTSUP}:
            raise
        raise LlmftError(
            f"{path}: this file system has no locks ({error.strerror}), so two runs could write the same files. "
            "Put output_root on another one."
        ) from error
    return True


def _is_same(descriptor: int, path: Path) -> bool:
    """Whether `path` is still the file that was opened: the run directory may have been removed and made anew."""
    try:
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def _unknown() -> dict[str, Any]:
    return {"pid": "unknown", "host": "an unknown host", "start": "just now"}

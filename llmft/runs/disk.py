"""The calls to the system behind every lasting write, one by one; lasting files are made through these alone.

For tests, the environment can make one of them fail and have all of them recorded: see `rehearsal`.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmft.runs import rehearsal


class File:
    """A file open for writing: a new one, or with `append` one that may be there, whose end every write goes to."""

    def __init__(self, path: Path, append: bool = False):
        flags = os.O_RDWR | os.O_APPEND if append else os.O_WRONLY | os.O_EXCL
        self.path = path
        # Not tempfile: its files are for their owner alone, whatever the umask says.
        self.descriptor: int = _do("open", path, os.open, path, flags | os.O_CREAT, 0o666)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data`; the system may take it in pieces. Raises OSError with some of it written."""
        left = memoryview(data)
        while left:
            left = left[_do("write", self.path, os.write, self.descriptor, left) :]

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes."""
        _do("truncate", self.path, os.ftruncate, self.descriptor, size)

    def sync(self) -> None:
        """Wait until all that was written is on the disk."""
        _do("fsync", self.path, os.fsync, self.descriptor)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def sync(path: Path) -> None:
    """Wait until a folder's entries, or a file that somebody else wrote, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _do("fsync", path, os.fsync, descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # file systems that cannot flush a folder
            raise
    finally:
        os.close(descriptor)


def rename(path: Path, to: Path) -> None:
    """Rename; a file or link at `to` is replaced in the same instant."""
    _do("rename", path, os.rename, path, to)


def symlink(path: Path, target: str) -> None:
    """Make the symbolic link `path`."""
    _do("symlink", path, os.symlink, target, path)


def mkdir(path: Path) -> None:
    """Make a folder."""
    _do("mkdir", path, os.mkdir, path)


def rmdir(path: Path) -> None:
    """Remove an empty folder."""
    _do("rmdir", path, os.rmdir, path)


def unlink(path: Path) -> None:
    """Remove a file or link."""
    _do("unlink", path, os.unlink, path)


def chmod(path: Path, mode: int) -> None:
    """Set who may read and write."""
    _do("chmod", path, os.chmod, path, mode)


def _do(operation: str, path: Path, call: Callable[..., Any], *arguments: Any) -> Any:
    if rehearsal.FAILPOINT in os.environ or rehearsal.OPERATIONS in os.environ:
        return rehearsal.do(operation, path, call, *arguments)
    return call(*arguments)

"""Lasting writes: a file or folder is there whole or not at all, whatever kills the process or cuts its power.

Everything is written under a temporary name beside its place, flushed to the disk, then renamed. A folder carries a
manifest of sizes and SHA-256, so that a reader can tell whether it is what was written.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmft.errors import LlmftError
from llmft.runs import disk, manifest, signals
from llmft.runs.leftovers import beside, remove_tree
from llmft.runs.leftovers import remove_leftovers as remove_leftovers
from llmft.runs.manifest import MANIFEST
from llmft.runs.manifest import sha256 as sha256
from llmft.runs.manifest import verify as verify

_EXPLAINED = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR}


@dataclass
class Draft:
    """A folder being filled, under a temporary name."""

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    """JSON values for the manifest."""
    hashes: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the files written by `write`."""

    def write(self, name: str, chunks: Iterable[bytes | bytearray | memoryview]) -> None:
        """Write a file piece by piece. It is hashed on the way, so that the manifest says what it should hold."""
        digest = hashlib.sha256()
        with contextlib.closing(disk.File(self.folder / name)) as out:
            for chunk in chunks:
                digest.update(chunk)
                out.write(chunk)
            out.sync()
        self.hashes[name] = digest.hexdigest()

    def write_json(self, name: str, value: Any) -> None:
        """Write `value` as indented JSON. Raises ValueError on NaN and infinity."""
        self.write(name, [_json(value)])


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8. Raises LlmftError if the disk is full or the folder cannot be written."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON. Raises ValueError on NaN and infinity, which JSON does not have."""
    write_bytes(path, _json(value))


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data`; the folder of `path` is made if it is missing. Raises LlmftError as `write_text`."""
    with explained(path):
        make_folder(path.parent)
        temporary = beside(path, "tmp")
        try:
            with contextlib.closing(disk.File(temporary)) as out:
                out.write(data)
                out.sync()
            disk.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                disk.unlink(temporary)
            raise
        disk.sync(path.parent)


def symlink(path: Path, target: Path | str) -> None:
    """Point the symbolic link `path` at `target`; an existing link moves without a moment in which it is gone."""
    with explained(path):
        temporary = beside(path, "tmp")
        disk.symlink(temporary, str(target))
        try:
            disk.rename(temporary, path)
        except BaseException:
            disk.unlink(temporary)
            raise
        disk.sync(path.parent)


def make_folder(path: Path) -> None:
    """Make `path` and the folders above it where they are missing, each flushed into the one above it."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with contextlib.suppress(FileExistsError):  # another process was quicker; what is no folder fails below
        disk.mkdir(path)
        disk.sync(path.parent)


def unlink(path: Path) -> None:
    """Remove the file `path`, which may be gone already."""
    with explained(path), contextlib.suppress(FileNotFoundError):
        disk.unlink(path)


@contextlib.contextmanager
def draft(path: Path, facts: dict[str, Any] | None = None) -> Iterator[Draft]:
    """A folder to fill, which becomes `path` when the block ends and vanishes when an exception leaves it.

    `facts` go into its manifest. Raises FileExistsError if `path` exists, LlmftError if the disk is full or the place cannot
    be written.
    """
    with explained(path):
        if os.path.lexists(path):
            raise FileExistsError(f"{path} exists")
        with _filled(path, facts) as new:
            yield new
            _seal(new)
            with _uninterrupted():
                disk.rename(new.folder, path)
                disk.sync(path.parent)


@contextlib.contextmanager
def directory(path: Path) -> Iterator[Path]:
    """As `draft`, for a folder that others fill: its files are hashed as they are found at the end."""
    with draft(path) as new:
        yield new.folder


@contextlib.contextmanager
def replacement(path: Path) -> Iterator[Path]:
    """As `directory`, but takes the place of the folder `path` if there is one.

    Killed between its two renames, it leaves the old folder under a hidden name; `remove_leftovers` puts it back.
    """
    with explained(path), _filled(path) as new:
        yield new.folder
        _seal(new)
        old = beside(path, "old")
        with _uninterrupted():
            if path.exists():
                disk.rename(path, old)
            try:
                disk.rename(new.folder, path)
            except BaseException:
                if old.exists():
                    disk.rename(old, path)
                raise
            disk.sync(path.parent)
        with contextlib.suppress(OSError):
            remove_tree(old)


def remove(path: Path) -> None:
    """Remove a folder: first its name, for good, then what is in it, so that nobody meets half of it. Raises OSError.

    A signal waits until all of it is gone.
    """
    hidden = beside(path, "tmp")
    with _uninterrupted():
        disk.rename(path, hidden)
        disk.sync(path.parent)
        remove_tree(hidden)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn a full disk or a missing permission into an LlmftError that says what to do; other errors pass."""
    try:
        yield
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if "os error 28" in str(error):  # how safetensors words a full disk, without an errno
            number = errno.ENOSPC
        if number not in _EXPLAINED or not _concerns(path, error):
            raise
        raise unwritable(path, number) from error


def unwritable(path: Path, number: int) -> LlmftError:
    """The error to raise when the system refuses to write `path` for the reason `number`, an errno."""
    free = ""
    with contextlib.suppress(OSError):
        free = f" ({shutil.disk_usage(path.parent).free / 1e6:,.1f} MB free)"
    return LlmftError(
        f"{path}: cannot be written: {os.strerror(number)}{free}. Free space or fix permissions there, or write elsewhere (output_root "
        "for runs, LLMFT_CACHE for the cache), then repeat the command."
    )


@contextlib.contextmanager
def _filled(path: Path, facts: dict[str, Any] | None = None) -> Iterator[Draft]:
    """A temporary folder beside `path`, locked while in use, removed if it is still there at the end."""
    make_folder(path.parent)
    temporary, lock = beside(path, "tmp"), None
    try:
        disk.mkdir(temporary)  # inside, for a signal may come right after it
        lock = os.open(temporary, os.O_RDONLY)
        with contextlib.suppress(OSError):  # no locks on folders here (NFS): the process id alone has to tell
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield Draft(temporary, facts or {})
    finally:
        if lock is not None:
            os.close(lock)
        with contextlib.suppress(OSError):  # what is left of it, the next run removes
            remove_tree(temporary)


def _seal(new: Draft) -> None:
    """Flush everything in the folder to the disk and write its manifest."""
    files, others = {}, []
    for each in manifest.entries(new.folder):
        name = str(each.relative_to(new.folder))
        if name not in new.hashes:
            others.append(each)
            disk.sync(each)
        files[name] = {"bytes": each.stat().st_size, "sha256": new.hashes.get(name) or sha256(each)}
    with contextlib.closing(disk.File(new.folder / MANIFEST)) as out:
        out.write(manifest.render(files, new.facts))
        out.sync()
    for each in others:
        disk.chmod(each, (new.folder / MANIFEST).stat().st_mode)  # safetensors gives its files to their owner alone
    for folder, _, _ in os.walk(new.folder, topdown=False):
        disk.sync(Path(folder))


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _concerns(path: Path, error: Exception) -> bool:
    """Whether `error` is about writing `path`, and not about a file that was read meanwhile."""
    name = Path(getattr(error, "filename", None) or path)
    return name.is_relative_to(path.parent) or path.is_relative_to(name)


def _uninterrupted() -> contextlib.AbstractContextManager[None]:
    """Put off signals. They reach the main thread only, so in another one there is nothing to put off."""
    return signals.deferred() if threading.current_thread() is threading.main_thread() else contextlib.nullcontext()

"""Lasting writes: a file or folder is there whole or not at all, whatever kills the process.

Everything is written under a temporary name beside its place, flushed to the disk, then renamed. A folder carries a
manifest of sizes and SHA-256, so that a reader can tell whether it is what was written.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmft.errors import LlmftError
from llmft.runs import signals

MANIFEST = "manifest.json"
CHUNK_BYTES = 1 << 20
_LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<kind>tmp|old)-[0-9a-f]{8}-(?P<pid>\d{1,9})")
_EXPLAINED = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR}


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8. Raises LlmftError if the disk is full or the folder cannot be written."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON. Raises ValueError on NaN and infinity, which JSON does not have."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data`; the folder of `path` is made if it is missing. Raises LlmftError as `write_text`."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(path, "tmp")
        try:
            with temporary.open("xb") as out:  # not tempfile: its files are 0600 whatever the umask says
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync(path.parent)


def symlink(path: Path, target: Path | str) -> None:
    """Point the symbolic link `path` at `target`; an existing link moves without a moment in which it is gone."""
    temporary = _beside(path, "tmp")
    temporary.symlink_to(target)
    try:
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise
    _sync(path.parent)


@contextlib.contextmanager
def directory(path: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `path` when the block ends and vanishes when an exception leaves it.

    Raises FileExistsError if `path` exists, LlmftError if the disk is full or the place cannot be written.
    """
    with explained(path):
        if os.path.lexists(path):
            raise FileExistsError(f"{path} exists")
        with _filled(path) as temporary:
            yield temporary
            _seal(temporary)
            with signals.deferred():
                temporary.rename(path)
                _sync(path.parent)


@contextlib.contextmanager
def replacement(path: Path) -> Iterator[Path]:
    """As `directory`, but takes the place of the folder `path` if there is one.

    Killed between its two renames, it leaves the old folder under a hidden name; `remove_leftovers` puts it back.
    """
    with explained(path), _filled(path) as temporary:
        yield temporary
        _seal(temporary)
        old = _beside(path, "old")
        with signals.deferred():
            if path.exists():
                path.rename(old)
            temporary.rename(path)
            _sync(path.parent)
        shutil.rmtree(old, ignore_errors=True)


def verify(path: Path) -> list[str]:
    """What is wrong with the folder `path` against its manifest, one sentence each; empty if it is whole."""
    try:
        expected = json.loads((path / MANIFEST).read_bytes())["files"]
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in expected.items()}
    except FileNotFoundError:
        return [f"{path}: no {MANIFEST}"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{path / MANIFEST}: not readable ({error})"]
    # Only files found here are opened: the names in a manifest come from whoever wrote it.
    found = {str(each.relative_to(path)): each for each in _files(path)}
    problems = [f"{path / name}: missing" for name in expected if name not in found]
    for name, each in found.items():
        if name not in expected:
            problems.append(f"{each}: not in {MANIFEST}")
        elif each.stat().st_size != expected[name][0]:
            problems.append(f"{each}: {each.stat().st_size} bytes, {expected[name][0]} were written")
        elif sha256(each) != expected[name][1]:
            problems.append(f"{each}: SHA-256 differs from {MANIFEST}")
    return problems


def remove_leftovers(parent: Path) -> None:
    """Remove what killed processes left half written in `parent`, and put back a folder that they had set aside."""
    for each in sorted(parent.iterdir()):
        match = _LEFTOVER.fullmatch(each.name)
        if match is None or _in_use(each, int(match["pid"])):
            continue
        place = parent / match["name"]
        if match["kind"] == "old" and not os.path.lexists(place):
            each.rename(place)
        elif each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """SHA-256 of a file in hex, read in pieces."""
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


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
        f"{path}: cannot be written: {os.strerror(number)}{free}. Free space or fix permissions there, or name another "
        "output_root, then repeat the command."
    )


@contextlib.contextmanager
def _filled(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, locked while in use, removed if it is still there at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path, "tmp")
    temporary.mkdir()
    lock = os.open(temporary, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # no locks on folders here (NFS): the process id alone has to tell
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield temporary
    finally:
        os.close(lock)
        shutil.rmtree(temporary, ignore_errors=True)


def _seal(folder: Path) -> None:
    """Flush everything below `folder` to the disk and write its manifest."""
    files = {}
    for each in _files(folder):
        _sync(each)
        files[str(each.relative_to(folder))] = {"bytes": each.stat().st_size, "sha256": sha256(each)}
    (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=2, ensure_ascii=False) + "\n")
    _sync(folder / MANIFEST)
    for each in _files(folder):
        each.chmod((folder / MANIFEST).stat().st_mode)  # safetensors gives its files to their owner alone
    for each in [folder, *folder.rglob("*")]:
        if each.is_dir():
            _sync(each)


def _files(folder: Path) -> list[Path]:
    return sorted(each for each in folder.rglob("*") if each.is_file() and each != folder / MANIFEST)


def _beside(path: Path, kind: str) -> Path:
    return path.parent / f".{path.name}.{kind}-{secrets.token_hex(4)}-{os.getpid()}"


def _concerns(path: Path, error: Exception) -> bool:
    """Whether `error` is about writing `path`, and not about a file that was read meanwhile."""
    name = Path(getattr(error, "filename", None) or path)
    return name.is_relative_to(path.parent) or path.is_relative_to(name)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # file systems that cannot flush a folder
            raise
    finally:
        os.close(descriptor)


def _in_use(leftover: Path, pid: int) -> bool:
    """Whether a living process still writes `leftover`. The lock tells across containers, where process ids do not."""
    if pid != os.getpid() and _is_alive(pid):
        return True
    try:
        descriptor = os.open(leftover, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return pid == os.getpid()
    finally:
        os.close(descriptor)
    return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # asks, sends nothing
    except OSError as error:
        return error.errno != errno.ESRCH  # not permitted: somebody else's
    return True

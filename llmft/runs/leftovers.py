"""What writes leave behind when their process dies: temporary files and folders, told from those still in use, and removed."""

import contextlib
import errno
import fcntl
import os
import re
import secrets
from pathlib import Path

from llmft.runs import disk

_LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<kind>tmp|old)-[0-9a-f]{8}-(?P<pid>\d{1,9})")


def beside(path: Path, kind: str) -> Path:
    """A temporary name beside `path`. `kind`: tmp, which may be removed, or old, which is put back if `path` is gone."""
    return path.parent / f".{path.name}.{kind}-{secrets.token_hex(4)}-{os.getpid()}"


def remove_leftovers(parent: Path) -> None:
    """Remove what killed processes left half written in `parent`, and put back a folder that they had set aside."""
    for each in sorted(parent.iterdir()):
        match = _LEFTOVER.fullmatch(each.name)
        if match is None or _in_use(each, int(match["pid"])):
            continue
        place = parent / match["name"]
        if match["kind"] == "old" and not os.path.lexists(place):
            disk.rename(each, place)
        elif each.is_dir() and not each.is_symlink():
            remove_tree(each)
        else:
            with contextlib.suppress(FileNotFoundError):
                disk.unlink(each)


def remove_tree(folder: Path) -> None:
    """Remove a folder and all in it, if it is there. Symbolic links are removed, not followed. Raises OSError."""
    for parent, folders, names in os.walk(folder, topdown=False):
        for each in (Path(parent, name) for name in sorted([*names, *folders])):
            with contextlib.suppress(FileNotFoundError):
                disk.rmdir(each) if each.is_dir() and not each.is_symlink() else disk.unlink(each)
    if folder.exists():
        with contextlib.suppress(FileNotFoundError):
            disk.rmdir(folder)


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

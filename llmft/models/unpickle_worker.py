"""Pickled weights to safetensors, in a process of its own: unpickling is where a stranger's file can run code.

Run by its path: FOLDER TARGET FILE ... writes TARGET/NAME.safetensors for each FOLDER/NAME.bin. torch reads nothing but
tensors (weights_only); should that be got round, the process has no environment, little memory and time, and an audit hook
that refuses programs, sockets, and files to write outside of TARGET.
"""

import os
import pickle
import re
import resource
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

SECONDS_PER_GB = 120
LEAST_SECONDS = 60
BESIDE_BYTES = 2 << 30
REFUSED = ("os.", "subprocess.", "socket.", "ctypes.", "shutil.", "pty.", "signal.", "sys.set", "winreg.", "ftplib.", "urllib.")
"""Audit events (docs.python.org, audit event table) by their beginnings: programs, sockets, foreign code, changes to files."""
ALLOWED = ("os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.chmod", "os.mkdir", "os.putenv", "os.unsetenv")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def shut_in(target: Path, size: int) -> None:
    """Refuse from now on what reading weights does not need."""
    seconds = LEAST_SECONDS + SECONDS_PER_GB * (size >> 30)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_DATA, (3 * size + BESIDE_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    inside = os.path.realpath(target) + os.sep

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(REFUSED) and event not in ALLOWED:
            raise PermissionError(f"the file wanted {event}")
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & WRITING
            if writes and not (isinstance(path, str | bytes) and os.path.realpath(os.fsdecode(path)).startswith(inside)):
                raise PermissionError(f"the file wanted to write {path}")

    sys.addaudithook(refuse)


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    """Read a file of named tensors. Raises whatever torch does, and TypeError for anything else in it."""
    found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))  # older files are none
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(each, torch.Tensor) for name, each in found.items()
    ):
        raise TypeError("it holds something else than named tensors")
    # tensors that share their memory are written once each: safetensors has no references
    return {name: each.detach().contiguous().clone() for name, each in found.items() if each.layout is torch.strided}


def reason(error: Exception) -> str:
    """Say in one line why a file was not read. torch's advice is to read it all the same, which is not passed on."""
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, pickle.UnpicklingError):
        named = re.search(r"GLOBAL ([\w.]+)", said)
        return f"it holds more than tensors{f', {named[1]}' if named else ''}"
    return said[:400]


def main(folder: Path, target: Path, names: list[str]) -> int:
    """Convert file by file; return the exit code, having said why it is not 0."""
    shut_in(target, max((folder / name).stat().st_size for name in names))
    for name in names:
        try:
            save_file(tensors_of(folder / name), target / f"{name.removesuffix('.bin')}.safetensors", {"format": "pt"})
        except Exception as error:
            print(f"{name}: {reason(error)}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))

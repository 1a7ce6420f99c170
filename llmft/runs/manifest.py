"""manifest.json: what a folder holds, so that a reader can tell whether it is what was written.

Sizes and SHA-256 of every file, facts that whoever wrote the folder wants to be sure of, and a SHA-256 of the manifest itself.
"""

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"


def render(files: dict[str, dict[str, Any]], facts: dict[str, Any]) -> bytes:
    """The manifest's bytes. `files`: name -> bytes and sha256; `facts`: JSON values."""
    body: dict[str, Any] = {"files": files, "facts": facts}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return (json.dumps(body | {"sha256": digest}, indent=2, ensure_ascii=False) + "\n").encode()


def read(folder: Path) -> tuple[dict[str, tuple[int, str]], dict[str, Any]]:
    """Size and SHA-256 of each file, and the facts. Raises ValueError if the manifest is not as it was written, or OSError."""
    if not stat.S_ISREG((folder / MANIFEST).stat().st_mode):
        raise ValueError("not a file")  # reading a pipe would wait for ever
    data = (folder / MANIFEST).read_bytes()
    try:
        values = json.loads(data)
        files, facts = values["files"], values["facts"]
        found = {name: (entry["bytes"], entry["sha256"]) for name, entry in files.items()}
        facts.items()
        same = render(files, facts) == data  # bytes, not values: a change that JSON does not see is a change
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a manifest ({type(error).__name__}: {error})") from error
    if not same:
        raise ValueError("it is not what was written: its SHA-256 of itself differs")
    return found, facts


def verify(path: Path, from_disk: bool = False) -> list[str]:
    """What is wrong with the folder `path` against its manifest, one sentence each; empty if it is whole.

    `from_disk` asks the system to forget what it has of the files in memory, so that the disk itself is read.
    """
    try:
        if from_disk:
            _forget(path / MANIFEST)
        expected, _ = read(path)
    except FileNotFoundError:
        return [f"{path}: no {MANIFEST}"]
    except (OSError, ValueError) as error:
        return [f"{path / MANIFEST}: not readable ({error})"]
    # Only files found here are opened: the names in a manifest come from whoever wrote it.
    found = {str(each.relative_to(path)): each for each in entries(path)}
    problems = [f"{path / name}: missing" for name in expected if name not in found]
    for name, each in found.items():
        try:
            if name not in expected:
                problems.append(f"{each}: not in {MANIFEST}")
            elif not each.is_file():
                problems.append(f"{each}: not a file")
            elif each.stat().st_size != expected[name][0]:
                problems.append(f"{each}: {each.stat().st_size} bytes, {expected[name][0]} were written")
            else:
                if from_disk:
                    _forget(each)
                if sha256(each) != expected[name][1]:
                    problems.append(f"{each}: SHA-256 differs from {MANIFEST}")
        except OSError as error:
            problems.append(f"{each}: cannot be read ({error.strerror})")
    return problems


def entries(folder: Path) -> list[Path]:
    """Everything below `folder` but folders and the manifest."""
    return sorted(each for each in folder.rglob("*") if each != folder / MANIFEST and (each.is_symlink() or not each.is_dir()))


def sha256(path: Path) -> str:
    """SHA-256 of a file in hex, read in pieces."""
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _forget(path: Path) -> None:
    """Drop the pages of a flushed file from memory; where the system cannot, the next read may come from there."""
    if hasattr(os, "posix_fadvise"):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would wait for ever; it cannot be advised, an OSError
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)

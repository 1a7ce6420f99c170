"""A disk that loses power: from the record of a run's operations, the states that a file system may be left in.

The model is POSIX's, at its weakest. What was written to a file is on the disk after an fsync of that file, and not a byte
of it need be before: each unflushed write may be there, missing (zeros where a later one is there), cut short, or noise. A
folder's entries are on the disk after an fsync of that folder; until then each change of them (a name made, moved, removed)
is there or not, whatever became of the others. A rename within a folder is one change: no state has both names or none.
"""

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Node:
    """A file, folder or link: what is on the disk for certain, and what happened since."""

    kind: str
    target: str = ""
    data: bytearray = field(default_factory=bytearray)
    """Of a file: its bytes, all of them."""
    flushed: int = 0
    """How many of them are on the disk for certain. Files only grow here."""
    pieces: list[int] = field(default_factory=list)
    """Sizes of the writes since."""
    entries: dict[str, "Node"] = field(default_factory=dict)
    """Of a folder, as they are on the disk for certain."""
    pending: list[dict[str, "Node | None"]] = field(default_factory=list)
    """Changes of the entries since: each gives names what they stand for, None for nothing."""

    def now(self) -> dict[str, "Node"]:
        """The entries as a running program sees them."""
        return applied(self.entries, self.pending)


class Disk:
    """Replays a record below `root`, an operation at a time."""

    def __init__(self, record: Path, root: Path):
        self.root = root
        self.rows = [json.loads(line) for line in record.read_text().splitlines()]
        self.bytes = Path(f"{record}.bytes").read_bytes()
        self.top = Node("folder")
        self.read = 0
        """Bytes used up of those written."""

    def step(self, number: int) -> None:
        """Do operation `number`, from 0."""
        row = self.rows[number]
        size = row["size"] if row["op"] == "write" else 0
        data, self.read = self.bytes[self.read : self.read + size], self.read + size
        path = Path(row["path"])
        if path == self.root:
            assert row["op"] in ("fsync", "mkdir"), row
            self._flush(self.top)
            return
        if not path.is_relative_to(self.root):
            return
        folder, node = self._folder(path.parent), self.find(path)
        match row["op"]:
            case "open":
                if node is None:
                    folder.pending.append({path.name: Node("file")})
            case "mkdir":
                assert node is None, row
                folder.pending.append({path.name: Node("folder")})
            case "symlink":
                assert node is None, row
                folder.pending.append({path.name: Node("link", row["target"])})
            case "rename":
                to = Path(row["to"])
                assert node is not None, row
                assert to.parent == path.parent, row
                folder.pending.append({path.name: None, to.name: node})
            case "unlink" | "rmdir":
                folder.pending.append({path.name: None})
            case "write":
                assert node is not None, row
                node.data += data
                node.pieces.append(size)
            case "truncate":
                assert node is None or len(node.data) == row["size"], row  # only ever found to be whole
            case "fsync":
                if node is not None:  # else a file that others wrote
                    self._flush(node)
            case "chmod":
                pass
            case _:
                raise AssertionError(row)

    def find(self, path: Path) -> Node | None:
        """What is at `path` as a running program sees it."""
        node: Node | None = self.top
        for part in path.relative_to(self.root).parts:
            if node is None:
                return None
            node = node.now().get(part)
        return node

    def _folder(self, path: Path) -> Node:
        """As `find`, of a folder; one that was made by others is made now, and not flushed."""
        found = self.find(path)
        if found is None:
            found = Node("folder")
            self._folder(path.parent).pending.append({path.name: found})
        return found

    def unflushed(self) -> int:
        """How many changes are not on the disk for certain, files' and folders', as seen by a running program."""
        return _unflushed(self.top)

    def left(self, draw: random.Random, place: Path, chance: float) -> None:
        """Write into the empty folder `place` what the disk may hold; each change is there with `chance`."""
        _write_folder(self.top, place, draw, chance)

    @staticmethod
    def _flush(node: Node) -> None:
        node.entries, node.pending = node.now(), []
        node.flushed, node.pieces = len(node.data), []


def applied(entries: dict[str, Node], changes: list[dict[str, Any]]) -> dict[str, Node]:
    """Entries after the changes."""
    found: dict[str, Node | None] = dict(entries)
    for change in changes:
        found |= change
    return {name: node for name, node in found.items() if node is not None}


def _unflushed(node: Node) -> int:
    return len(node.pending) + len(node.pieces) + sum(map(_unflushed, node.now().values()))


def _write_folder(node: Node, place: Path, draw: random.Random, chance: float) -> None:
    kept = [change for change in node.pending if draw.random() < chance]
    for name, entry in applied(node.entries, kept).items():
        if entry.kind == "folder":
            (place / name).mkdir()
            _write_folder(entry, place / name, draw, chance)
        elif entry.kind == "link":
            (place / name).symlink_to(entry.target)
        else:
            (place / name).write_bytes(_data(entry, draw, chance))


def _data(node: Node, draw: random.Random, chance: float) -> bytes:
    """A file's bytes as they may be on the disk."""
    found, end = bytearray(node.data[: node.flushed]), node.flushed
    for size in node.pieces:
        piece = node.data[end : end + size]
        end += size
        if draw.random() < chance:
            found += bytes(end - size - len(found)) + piece
            continue
        match draw.randrange(4):  # lost: nothing, a part, or blocks given to the file and never filled
            case 0:
                pass
            case 1:
                found += bytes(end - size - len(found)) + piece[: draw.randrange(size)]
            case 2:
                found += bytes(end - len(found))
            case 3:
                found += bytes(end - size - len(found)) + draw.randbytes(size)
    return bytes(found)

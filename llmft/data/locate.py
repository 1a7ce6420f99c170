"""What a name in task.data stands for: a file, a folder with splits, a folder of `datasets`, or a data set on the hub."""

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from llmft.config.schema import Data, TextBy
from llmft.data.row import BadRow, Row
from llmft.data.source import SUFFIXES, Layout, kind_of, layout_of, scan
from llmft.data.strict_json import problem_in
from llmft.errors import DataError
from llmft.runs.provenance import hash_file

SPLIT_NAMES = {"train": ("train",), "validation": ("validation", "valid", "dev", "val"), "test": ("test",)}
UNSPLIT = ""
"""Split name of what has no splits."""
HUB_ID = re.compile(r"([\w-][\w.-]*/[\w.-]+)(?:\[(\w+)\])?")
"""A data set on the hub, owner/name, or one split of it by the name that it has there, owner/name[validation_matched]."""


class Piece(Protocol):
    """Rows that come from one place."""

    @property
    def name(self) -> str:
        """What people call it."""

    def scan(self) -> Iterator[Row | BadRow]:
        """Yield every record, readable or not."""

    @property
    def format(self) -> str:
        """How the content becomes rows."""

    def record(self) -> dict[str, Any]:
        """Return path, bytes, and sha256 of the content, for data.json."""


@dataclass(frozen=True)
class FilePiece:
    """A data file."""

    path: Path
    layout: Layout

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def format(self) -> str:
        columns = f"columns {json.dumps(self.layout.columns)}" if self.layout.columns else ""
        text_by = "" if self.layout.text_by is TextBy.line else f"by {self.layout.text_by.name}"
        kind = kind_of(self.path)
        return f"{kind} {self.layout.rows_under or ''}{text_by if kind == '.txt' else ''}{columns}"

    def scan(self) -> Iterator[Row | BadRow]:
        return scan(self.path, self.layout)

    def record(self) -> dict[str, Any]:
        return {"path": self.name, "bytes": self.path.stat().st_size, "sha256": hash_file(self.path)}


@dataclass(frozen=True)
class TablePiece:
    """A split of a data set that the `datasets` library opened."""

    name: str
    table: Any
    format: str = "rows"

    def scan(self) -> Iterator[Row | BadRow]:
        import pyarrow  # here: heavy, and only needed for such sets

        try:
            self.table.data.validate(full=True)  # damaged lengths would read beyond the file, and end the process
        except pyarrow.ArrowException as err:
            raise DataError(f"{self.name}: damaged: {first_line(err)}. Write or fetch the data set again.") from err
        for number, fields in enumerate(self.table.with_format(None), start=1):
            where = f"{self.name}:row {number}"
            problem = problem_in(fields)
            yield BadRow(where, f"{problem}; expected text.") if problem else Row(fields, where)

    def record(self) -> dict[str, Any]:
        """Hash the arrow files, not the library's fingerprint, which depends on when they were written."""
        paths = [Path(file["filename"]) for file in self.table.cache_files]
        if paths and self.table._indices is None:
            hashes = [hash_file(path) for path in paths]
            sizes = sum(path.stat().st_size for path in paths)
            digest = hashlib.sha256(json.dumps([len(self.table), *hashes]).encode()).hexdigest()
            return {"path": self.name, "bytes": sizes, "sha256": digest}
        return {"path": self.name, "bytes": self.table.nbytes, "sha256": hash_rows(self.scan())}


@dataclass(frozen=True)
class BuiltinPiece:
    """A split of a built-in set."""

    name: str
    rows: Iterable[Row]
    format: str = "rows"

    def scan(self) -> Iterator[Row | BadRow]:
        return iter(self.rows)

    def record(self) -> dict[str, Any]:
        return {"path": self.name, "bytes": None, "sha256": hash_rows(self.scan())}


def locate(name: str, key: str, data: Data) -> dict[str, list[Piece]]:
    """Return the pieces that `name`, given as `key`, stands for, by split (UNSPLIT: there are none).

    Raises DataError if there is nothing by that name, saying where it was looked for.
    """
    path = Path(name).expanduser()
    if path.is_file():
        if kind_of(path) is None:
            raise DataError(
                f"{key}={name}: unknown file type; expected one of {', '.join(SUFFIXES)}. Convert or rename the file."
            )
        return {UNSPLIT: [FilePiece(path, layout_of(data))]}
    if path.is_dir():
        if any((path / mark).exists() for mark in ("dataset_dict.json", "state.json")):
            return load_saved(path, key)
        return split_files(path, key, layout_of(data))
    hub = HUB_ID.fullmatch(name)
    if hub and kind_of(path) is None and not path.parent.exists():
        found = load_hub(hub[1], key, data.subset, data.revision)
        return tables(found, hub[1]) if hub[2] is None else {UNSPLIT: [split_of(found, hub[1], hub[2], key)]}
    parent = path.parent
    while not parent.is_dir():
        parent = parent.parent
    wanted = path.relative_to(parent).parts[0]
    near = difflib.get_close_matches(wanted, sorted(entry.name for entry in parent.iterdir()), n=3)
    hint = f" Did you mean {' or '.join(str(parent / entry) for entry in near)}?" if near else ""
    raise DataError(
        f"{key}={name}: there is no {wanted!r} in {parent.absolute()}.{hint} Name a file, a folder, or a hub id owner/name."
    )


def split_files(folder: Path, key: str, layout: Layout) -> dict[str, list[Piece]]:
    """Find train.jsonl, dev.csv, test-00000-of-00002.parquet and the like in a folder, or in its subfolder data."""
    for place in (folder, folder / "data"):
        found: dict[str, list[Path]] = {}
        for path in sorted(place.glob("*")):
            stem = re.sub(r"-\d+-of-\d+$", "", path.name.partition(".")[0])
            split = next((split for split, names in SPLIT_NAMES.items() if stem in names), None)
            if split and path.is_file() and kind_of(path):
                found.setdefault(split, []).append(path)
        for split, paths in found.items():
            if len(paths) > 1 and not all("-of-" in path.name for path in paths):
                raise DataError(
                    f"{key}={folder}: {' and '.join(path.name for path in paths)} could both be the {split} split; "
                    "expected one. Name the files instead of the folder."
                )
        if found:
            return {split: [FilePiece(path, layout) for path in paths] for split, paths in found.items()}
    names = sorted(path.name for path in folder.iterdir())
    has = f"it has {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}" if names else "it is empty"
    raise DataError(f"{key}={folder}: no file named train, validation or test in the folder; {has}. Name the files themselves.")


def load_saved(folder: Path, key: str) -> dict[str, list[Piece]]:
    """Open a folder that `datasets` wrote by save_to_disk."""
    import datasets  # here: heavy, and only needed for such folders

    try:
        found = datasets.load_from_disk(str(folder))
    except Exception as err:  # the library raises what it meets: pyarrow's, json's, its own errors
        raise DataError(
            f"{key}={folder}: not a readable save_to_disk folder: {first_line(err)}. Write it again, or name data files."
        ) from err
    return tables(found, str(folder))


def load_hub(name: str, key: str, subset: str | None, revision: str | None) -> Any:
    """Load a data set from the hub, or from the hub's cache on this machine, as a Dataset by split."""
    import datasets  # as above

    try:
        return datasets.load_dataset(name, name=subset, revision=revision)
    except Exception as err:  # as above, and all that a network can raise
        raise DataError(
            f"{key}={name}: there is no such file or folder in {Path.cwd()}, and as a hub data set"
            f"{f' (subset {subset})' if subset else ''} it cannot be loaded: {first_line(err)}. "
            "Name a local file or folder, or correct the id, task.data.subset and task.data.revision."
        ) from err


def split_of(found: Any, name: str, split: str, key: str) -> Piece:
    """Return one split of a data set. Raises DataError if there is none of that name."""
    if split not in found:
        raise DataError(f"{key}={name}[{split}]: no such split; it has {', '.join(map(str, found))}. Name one of them.")
    return TablePiece(f"{name}[{split}]", found[split])


def tables(found: Any, name: str) -> dict[str, list[Piece]]:
    """Return the splits of a Dataset or DatasetDict under our names; others keep theirs."""
    if not isinstance(found, dict):
        return {UNSPLIT: [TablePiece(name, found)]}
    ours = {alias: split for split, aliases in SPLIT_NAMES.items() for alias in aliases}
    return {ours.get(str(split), str(split)): [TablePiece(f"{name}[{split}]", table)] for split, table in found.items()}


def canonical(row: Row) -> bytes:
    """Return a row's content as bytes that equal rows share; keys in any order."""
    return json.dumps(row.fields, sort_keys=True, default=str).encode()


def hash_rows(rows: Iterable[Row | BadRow]) -> str:
    """Return the SHA-256 of the readable rows in hex."""
    digest = hashlib.sha256()
    for row in rows:
        if isinstance(row, Row):
            digest.update(canonical(row) + b"\n")
    return digest.hexdigest()


def first_line(error: Exception) -> str:
    """Return what an error says, without the rest of its story."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")

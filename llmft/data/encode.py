"""Tokenised documents, kept on disk and mapped into memory, so that memory does not grow with rows.

A cache folder holds flat arrays, the row limits in them, and one JSON line of facts per row:
ids.i32 and loss_mask.u1 (the stream that predicts), source_ids.i32 (encoder-decoders), each row's limits in *_offsets.i64,
units.i64 (what the loss is divided by), facts.jsonl (id, where, source_cut, labels, second).
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from llmft.runs import durable

CACHE_FORMAT = 2
"""Raised when the files of a cache change meaning; part of every key."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """One document as token ids.

    Decoders: `ids` is prompt then answer, `source_ids` None. Encoder-decoders: `source_ids` is read, `ids` is the answer.
    `loss_mask` tells which of `ids` are to be predicted; `where` names the row, `source_cut` counts source tokens cut off.
    `units` is what the document counts for when the loss of a step is divided: tokens with loss, or spans, or rows;
    0 leaves it out of training. `labels` is what is predicted where that is no token: class places, a value, or an
    answer's first and last token. `second` is the place where the second text of a pair begins; 0: there is none.
    """

    id: str
    ids: np.ndarray
    loss_mask: np.ndarray
    source_ids: np.ndarray | None
    where: str
    units: int
    source_cut: int = 0
    labels: tuple[float, ...] = ()
    second: int = 0

    def __len__(self) -> int:
        """Tokens of both streams."""
        return len(self.ids) + (0 if self.source_ids is None else len(self.source_ids))


class TokenCache:
    """The documents of a cache folder, by position; arrays are read from disk as they are looked at.

    `lengths` and `units` are arrays over the rows: tokens of both streams, and what the loss is divided by.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._ids = mapped(folder / "ids.i32", np.int32)
        self._loss_mask = mapped(folder / "loss_mask.u1", np.bool_)
        self._source_ids = mapped(folder / "source_ids.i32", np.int32)
        self._facts = mapped(folder / "facts.jsonl", np.uint8)
        self._offsets = mapped(folder / "ids_offsets.i64", np.int64)
        self._source_offsets = mapped(folder / "source_ids_offsets.i64", np.int64)
        self._facts_offsets = mapped(folder / "facts_offsets.i64", np.int64)
        self.units = mapped(folder / "units.i64", np.int64)
        self.lengths = np.diff(self._offsets)
        if len(self._source_offsets):
            self.lengths = self.lengths + np.diff(self._source_offsets)

    def __len__(self) -> int:
        return len(self.units)

    def __getitem__(self, row: int) -> Encoded:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        place = slice(*self._offsets[row : row + 2])
        facts = json.loads(self._facts[slice(*self._facts_offsets[row : row + 2])].tobytes())
        return Encoded(
            ids=self._ids[place],
            loss_mask=self._loss_mask[place],
            source_ids=self._source_ids[slice(*self._source_offsets[row : row + 2])] if len(self._source_offsets) else None,
            units=int(self.units[row]),
            **facts | {"labels": tuple(facts["labels"])},
        )

    def __iter__(self) -> Iterator[Encoded]:
        return (self[row] for row in range(len(self)))


def mapped(path: Path, dtype: type) -> np.ndarray:
    """Return a file as a read-only array that stays on disk."""
    if path.stat().st_size == 0:  # nothing cannot be mapped
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, mode="r"))


def write_cache(folder: Path, items: Iterable[Encoded]) -> None:
    """Write documents to `folder` as they come; it appears once all are written. Raises FileExistsError if it is there."""
    with durable.directory(folder) as temporary:
        write_arrays(temporary, items)


def write_arrays(folder: Path, items: Iterable[Encoded]) -> None:
    """Fill `folder` with the files of a cache, holding one document in memory."""
    names = ["ids.i32", "loss_mask.u1", "source_ids.i32", "facts.jsonl", "ids_offsets.i64", "source_ids_offsets.i64"]
    names += ["facts_offsets.i64", "units.i64"]
    with contextlib.ExitStack() as opened:
        out: dict[str, BinaryIO] = {name: opened.enter_context((folder / name).open("xb")) for name in names}
        for row, item in enumerate(items):
            assert len(item.ids) == len(item.loss_mask), f"{item.where}: {len(item.ids)} ids, {len(item.loss_mask)} mask"
            if row == 0:
                two_streams = item.source_ids is not None
                for name in ["ids_offsets.i64", "facts_offsets.i64"] + ["source_ids_offsets.i64"] * two_streams:
                    out[name].write(np.int64(0).tobytes())
            assert two_streams == (item.source_ids is not None), f"{item.where}: not as many streams as in the rows before"
            out["ids.i32"].write(np.asarray(item.ids, np.int32).tobytes())
            out["loss_mask.u1"].write(np.asarray(item.loss_mask, np.bool_).tobytes())
            out["ids_offsets.i64"].write(np.int64(out["ids.i32"].tell() // 4).tobytes())
            if item.source_ids is not None:
                out["source_ids.i32"].write(np.asarray(item.source_ids, np.int32).tobytes())
                out["source_ids_offsets.i64"].write(np.int64(out["source_ids.i32"].tell() // 4).tobytes())
            facts = {name: getattr(item, name) for name in ("id", "where", "source_cut", "labels", "second")}
            out["facts.jsonl"].write(json.dumps(facts).encode() + b"\n")
            out["facts_offsets.i64"].write(np.int64(out["facts.jsonl"].tell()).tobytes())
            out["units.i64"].write(np.int64(item.units).tobytes())


def cache_key(**parts: Any) -> str:
    """Return a key in hex for everything token ids depend on: data content, templates, tokenizer, limits; all JSON values."""
    text = json.dumps({"format": CACHE_FORMAT, **parts}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def cached(root: Path, key: str, make: Callable[[], Iterable[Encoded]]) -> TokenCache:
    """Open the cache `key` under `root`; if it is missing or damaged, fill it from `make` first.

    Processes that want the same key at once wait for the first one and share what it wrote.
    """
    folder = root / key
    with locked(root / f"{key}.lock"):
        if not folder.exists() or durable.verify(folder):
            durable.remove_leftovers(root)
            with durable.replacement(folder) as temporary:
                write_arrays(temporary, make())
    return TokenCache(folder)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock among processes, waiting for it; it ends with the process, however that ends."""
    with durable.explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        with contextlib.suppress(OSError):  # no locks on this file system: both build, and the later one stays
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)

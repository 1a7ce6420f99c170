"""Tokenised documents, kept on disk and mapped into memory, so that memory does not grow with rows.

A cache folder holds flat arrays, the row limits in them, and one JSON line of facts per row:
ids.i32 and loss_mask.u1 (the stream that predicts), source_ids.i32 (encoder-decoders), each row's limits in *_offsets.i64,
units.i64 (what the loss is divided by), source_cuts.i64 (tokens cut off), facts.jsonl (id, where, labels, second).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

CACHE_FORMAT = 3
"""Raised when the files of a cache change meaning; part of every key."""
BLOCK = 1 << 16
"""Rows whose facts are read at once."""
FILES = (
    "ids.i32",
    "loss_mask.u1",
    "source_ids.i32",
    "facts.jsonl",
    "ids_offsets.i64",
    "source_ids_offsets.i64",
    "facts_offsets.i64",
    "units.i64",
    "source_cuts.i64",
)


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

    def tail(self, tokens: int, bearing: int) -> "Encoded":
        """Return the last tokens of a decoder's document, up to the last with loss, as a document of its own.

        Of them the last `bearing` may carry loss, so that there is something before.
        """
        stop = int(np.flatnonzero(self.loss_mask)[-1]) + 1 if self.loss_mask.any() else len(self.ids)
        places = slice(max(0, stop - tokens), stop)
        mask = self.loss_mask[places].copy()
        mask[:-bearing] = False
        return replace(self, ids=self.ids[places], loss_mask=mask, units=int(np.count_nonzero(mask[1:])))

    def __len__(self) -> int:
        """Tokens of both streams."""
        return len(self.ids) + (0 if self.source_ids is None else len(self.source_ids))


class TokenCache:
    """The documents of a cache folder, by position; arrays are read from disk as they are looked at.

    `lengths`, `units` and `source_cuts` are arrays over the rows: tokens of both streams, what the loss is divided by, and
    how many source tokens were cut off. Only the first is in memory, 4 bytes a row: read whole, the others would be there too.
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
        self.source_cuts = mapped(folder / "source_cuts.i64", np.int64)
        self.lengths = sizes_of(folder / "ids_offsets.i64")
        if len(self._source_offsets):
            self.lengths += sizes_of(folder / "source_ids_offsets.i64")

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
            source_cut=int(self.source_cuts[row]),
            **facts | {"labels": tuple(facts["labels"])},
        )

    def __iter__(self) -> Iterator[Encoded]:
        return (self[row] for row in range(len(self)))

    def beginning(self, row: int, start: int, stop: int) -> bytes:
        """Return the tokens `start`:`stop` of what a row's model reads first, as bytes; fewer where the row is shorter."""
        ids, offsets = (self._source_ids, self._source_offsets) if len(self._source_offsets) else (self._ids, self._offsets)
        first, end = offsets[row : row + 2]
        return ids[min(first + start, end) : min(first + stop, end)].tobytes()

    def rows_with_loss(self) -> np.ndarray:
        """Return the places of the rows that have units, as 32-bit numbers."""
        found = [np.flatnonzero(units).astype(np.uint32) + start for start, units in blocks(self.folder / "units.i64")]
        return np.concatenate([np.empty(0, np.uint32), *found])

    def sums(self) -> tuple[int, int, int]:
        """Return the units of all rows; and of those with units, how many lost source tokens, and how many tokens they lost."""
        total = cut_rows = cut_tokens = 0
        both = zip(blocks(self.folder / "units.i64"), blocks(self.folder / "source_cuts.i64"), strict=True)
        for (_, units), (_, cuts) in both:
            total += int(units.sum())
            cut_rows += int(((cuts > 0) & (units > 0)).sum())
            cut_tokens += int(cuts[units > 0].sum())
        return total, cut_rows, cut_tokens


def mapped(path: Path, dtype: type) -> np.ndarray:
    """Return a file as a read-only array that stays on disk."""
    if path.stat().st_size == 0:  # nothing cannot be mapped
        return np.empty(0, dtype)
    return np.asarray(np.memmap(path, dtype, mode="r"))


def blocks(path: Path, overlap: int = 0) -> Iterator[tuple[int, np.ndarray]]:
    """Yield a file of 64-bit numbers in pieces with their first places; they share `overlap` numbers.

    Read and not mapped: what is mapped counts as memory of the process once it was looked at.
    """
    count = path.stat().st_size // 8
    for start in range(0, count - overlap, BLOCK):
        yield start, np.fromfile(path, np.int64, BLOCK + overlap, offset=8 * start)


def sizes_of(path: Path) -> np.ndarray:
    """Return the tokens of each row, as 32-bit numbers, from a file of limits."""
    found = [np.diff(limits).astype(np.int32) for _, limits in blocks(path, overlap=1)]
    return np.concatenate([np.empty(0, np.int32), *found])


def written(items: Sequence[Encoded], sizes: Mapping[str, int]) -> dict[str, bytes]:
    """Return what documents add to each file of a cache whose files have these sizes so far, in bytes."""
    if not items:
        return {}
    first = sizes["units.i64"] == 0
    two_streams = items[0].source_ids is not None if first else sizes["source_ids_offsets.i64"] > 0
    for item in items:
        assert len(item.ids) == len(item.loss_mask), f"{item.where}: {len(item.ids)} ids, {len(item.loss_mask)} mask"
        assert two_streams == (item.source_ids is not None), f"{item.where}: not as many streams as in the rows before"
    facts = [facts_of(item) for item in items]
    added = {
        "ids.i32": joined([item.ids for item in items], np.int32),
        "loss_mask.u1": joined([item.loss_mask for item in items], np.bool_),
        "facts.jsonl": b"".join(facts),
        "ids_offsets.i64": offsets([len(item.ids) for item in items], sizes["ids.i32"] // 4, first),
        "facts_offsets.i64": offsets([len(line) for line in facts], sizes["facts.jsonl"], first),
        "units.i64": np.array([item.units for item in items], np.int64).tobytes(),
        "source_cuts.i64": np.array([item.source_cut for item in items], np.int64).tobytes(),
    }
    if two_streams:
        sources = [item.source_ids for item in items if item.source_ids is not None]
        added["source_ids.i32"] = joined(sources, np.int32)
        added["source_ids_offsets.i64"] = offsets([len(ids) for ids in sources], sizes["source_ids.i32"] // 4, first)
    return added


def joined(arrays: Sequence[np.ndarray], dtype: type) -> bytes:
    """Lay arrays end to end."""
    return b"".join(np.asarray(array, dtype).tobytes() for array in arrays)


def offsets(lengths: Sequence[int], start: int, first: bool) -> bytes:
    """Return where each row ends, the rows before them at `start`; in front of the first row, that it begins at 0."""
    ends = start + np.cumsum(lengths, dtype=np.int64)
    return (np.concatenate([[0], ends]) if first else ends).tobytes()


def facts_of(item: Encoded) -> bytes:
    """Return a document's line of facts."""
    return json.dumps({name: getattr(item, name) for name in ("id", "where", "labels", "second")}).encode() + b"\n"


def cache_key(**parts: Any) -> str:
    """Return a key in hex for everything token ids depend on: data content, templates, tokenizer, limits; all JSON values."""
    text = json.dumps({"format": CACHE_FORMAT, **parts}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()

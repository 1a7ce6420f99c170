"""The splits of a run: which rows are trained on, validated on and tested on."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from itertools import islice
from typing import Any

from llmft.config.schema import Data
from llmft.data.locate import SPLIT_NAMES, UNSPLIT, BuiltinPiece, Piece, canonical, locate
from llmft.data.parallel import open_parallel
from llmft.data.row import BadRow, Row
from llmft.data.row_function import RowFunction, rows_of, source_of
from llmft.data.source import readable
from llmft.errors import ConfigError, DataError


class RowSource:
    """The rows of a split; every iteration reads them anew, one in memory at a time.

    Held out by the content of the records as they stand in the files, so that all rows that a row function makes from one
    record, such as an article, are in one split; the limit counts the rows that it makes.

    Attributes: `description` for people, `bad_rows` that the last iteration left out: those that cannot be read, and those
    that who reads them reports to `leave_out`.
    """

    def __init__(
        self,
        split: str,
        pieces: list[Piece],
        bands: "Bands | None",
        limit: int | None,
        max_bad_rows: int,
        row: RowFunction | None = None,
    ):
        self.split = split
        self._row = row
        self.bad_rows: list[BadRow] = []
        self._pieces = pieces
        self._bands = bands
        self._limit = limit
        self._max_bad_rows = max_bad_rows
        names = ", ".join(piece.name for piece in pieces)
        self.description = names if bands is None else bands.describe(split, names)
        if limit is not None:
            self.description += f", first {limit} rows"

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows. Raises DataError if more than max_bad_rows are bad, or if there are none at all."""
        self.bad_rows = []
        taken = 0
        for row in islice(self._rows(), self._limit):
            taken += 1
            yield row
        if taken == 0:
            raise DataError(
                f"{self.description}: no rows for {self.split}; expected at least one. "
                f"Name task.data.{self.split}, or give more rows"
                f"{'' if self._bands is None else f' or a larger task.data.holdout than {self._bands.share:g}'}"
                f"{'' if self._row is None else ', or let task.row keep some'}."
            )

    def left_out(self) -> list[str]:
        """Say which rows the last iteration left out; nothing if it left out none."""
        if not self.bad_rows:
            return []
        first = self.bad_rows[0]
        return [
            f"{len(self.bad_rows):,} {self.split} rows are left out (task.data.max_bad_rows={self._max_bad_rows}), the first at "
            f"{first.where}: {first.reason}"
        ]

    @cached_property
    def files(self) -> list[dict[str, Any]]:
        """Path, bytes and sha256 of what is read, for data.json."""
        return [piece.record() for piece in self._pieces]

    @cached_property
    def content(self) -> str:
        """SHA-256 in hex over what the rows are: the files' content, and all that makes rows of it; not the files' names."""
        bands = None if self._bands is None else self._bands.to_json(self.split)
        parts: list[Any] = [
            [piece["sha256"] for piece in self.files],
            [piece.format for piece in self._pieces],
            bands,
            self._limit,
        ]
        if self._row is not None:
            parts.append(source_of(self._row))
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def leave_out(self, where: str, error: DataError) -> None:
        """Count a row that was read and cannot be used, beside those that cannot be read. Raises DataError if they are too many."""
        self.bad_rows.append(BadRow(where, str(error).removeprefix(f"{where}: ")))
        if self._max_bad_rows == 0:
            raise error
        if len(self.bad_rows) > self._max_bad_rows:
            raise DataError(
                f"{error} {len(self.bad_rows)} rows are bad; task.data.max_bad_rows={self._max_bad_rows} are allowed."
            ) from error

    def _rows(self) -> Iterator[Row]:
        for piece in self._pieces:
            for record in readable(piece.scan(), self._max_bad_rows, self.bad_rows):
                if self._bands is not None and self._bands.split_of(record) != self.split:
                    continue
                try:
                    made = rows_of(record, self._row)
                except DataError as error:
                    self.leave_out(record.where, error)
                    continue
                yield from made


class Bands:
    """Which split a row of the training data falls to, by a hash of its content.

    So equal rows stay together, and rows that are added later move no other row. Each split has its band of hashes, used or
    not: naming one split does not change what is held out for the other.
    """

    def __init__(self, share: float, held_out: set[str]):
        self.share = share
        self.held_out = held_out

    def split_of(self, row: Row) -> str:
        """Return train, validation or test."""
        place = int.from_bytes(hashlib.blake2b(canonical(row), digest_size=8).digest(), "big") / 2**64
        split = "test" if place < self.share else "validation" if place < 2 * self.share else "train"
        return split if split in self.held_out else "train"

    def to_json(self, split: str) -> list[Any]:
        """Return what decides which rows fall to `split`."""
        return [self.share, sorted(self.held_out) if split == "train" else split]

    def describe(self, split: str, names: str) -> str:
        """Say in words which part of `names` a split is."""
        if split == "train":
            return f"{names} without {100 * self.share:g} % each for {' and '.join(sorted(self.held_out))}"
        return f"{100 * self.share:g} % of {names}, held out by content"


def open_splits(
    data: Data, builtin: Callable[[], Mapping[str, Iterable[Row]]] | None, row: RowFunction | None = None
) -> dict[str, RowSource]:
    """Return the splits that `data` names, and those that follow from it, under train, validation and test.

    Without data.train the built-in set gives what is not named. With it, a split that is not named is the data set's own,
    else held out from the training rows. Every row goes through the function `row`.

    Raises ConfigError if nothing is named or data.holdout is no share, DataError if a name stands for nothing.
    """
    if not 0 <= data.holdout < 0.5:
        raise ConfigError(f"task.data.holdout={data.holdout}: expected a share from 0 up to, not including, 0.5")
    named = {split: named_pieces(data, split) for split in SPLIT_NAMES if getattr(data, split)}
    bands = None
    if "train" in named:
        own = named["train"]
        pieces = {"train": chosen(own, "train", data)}
        if "train" in own or UNSPLIT in own:
            pieces |= {split: own[split] for split in ("validation", "test") if split in own}
        pieces |= {split: chosen(found, split, data) for split, found in named.items()}
        missing = {split for split in ("validation", "test") if split not in pieces}
        if missing and data.holdout > 0:
            bands = Bands(data.holdout, missing)
            pieces |= dict.fromkeys(missing, pieces["train"])
    else:
        pieces = {}
        if builtin is not None:
            pieces |= {split: [BuiltinPiece(f"built-in {data.builtin} {split}", rows)] for split, rows in builtin().items()}
        pieces |= {split: chosen(found, split, data) for split, found in named.items()}
    if not pieces:
        raise ConfigError("task.data.train is not set and the task has no built-in set; name a file, a folder or a hub id")
    return {
        split: RowSource(
            split,
            pieces[split],
            bands if bands is not None and split in {"train", *bands.held_out} else None,
            getattr(data, f"max_{split}"),
            data.max_bad_rows,
            row,
        )
        for split in SPLIT_NAMES
        if split in pieces
    }


def named_pieces(data: Data, split: str) -> dict[str, list[Piece]]:
    """Return what the names under data.<split> stand for, by the splits they have themselves."""
    named = getattr(data, split)
    if isinstance(named, dict):
        return {UNSPLIT: [open_parallel(named, f"task.data.{split}")]}
    found: dict[str, list[Piece]] = {}
    for name in named:
        for own, pieces in locate(name, f"task.data.{split}", data).items():
            found.setdefault(own, []).extend(pieces)
    return found


def chosen(found: dict[str, list[Piece]], split: str, data: Data) -> list[Piece]:
    """Return the pieces that are meant where data.<split> names a thing: all, or its split of that name, or its only one."""
    pieces = found.get(UNSPLIT, []) + found.get(split, [])
    if not pieces and len(found) == 1:
        pieces = next(iter(found.values()))
    if not pieces:
        raise DataError(
            f"task.data.{split}={' '.join(getattr(data, split))}: no {split} split; it has {', '.join(found)}. "
            "Name the file of the split that is meant."
        )
    return pieces

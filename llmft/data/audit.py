"""What is wrong with the data as a whole: repeated, leaked and empty rows, counted and listed, none removed."""

import hashlib
import re
import unicodedata
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from llmft.data.example import Example, TextExample

AUDIT_FORMAT = 1
"""Raised when something else is looked for: what was found in the same rows before does not count then."""
LISTED = 100
"""Rows listed per kind; the counts are always whole."""


def audit(splits: Mapping[str, Iterable[Example]], control: re.Pattern[str] | None = None) -> dict[str, Any]:
    """Read every split once and return what `Audit` found."""
    auditor = Audit(splits, control)
    for split in sorted(splits, key=lambda split: split == "train"):
        for _ in auditor.watch(split, splits[split]):
            pass
    return auditor.found()


class Audit:
    """Counts what is wrong while rows go by, whatever they are read for; the evaluation splits have to go by before training.

    Texts are compared by 64-bit hashes, without regard to case and white space: memory is 16 bytes per training row.
    """

    def __init__(self, splits: Iterable[str], control: re.Pattern[str] | None = None):
        self.splits = tuple(splits)
        self._control = control
        self._rows, self._empty_sources, self._empty_targets, self._controlling = (
            dict.fromkeys(self.splits, 0) for _ in range(4)
        )
        # The evaluation rows come first: training, the long one, can then be told from them as it passes by.
        self._held: dict[int, list[tuple[str, str]]] = defaultdict(list)
        self._whole_held: dict[int, list[str]] = defaultdict(list)
        self._sources, self._wholes = array("Q"), array("Q")
        self._overlap, self._whole_overlap = ({split: 0 for split in self.splits if split != "train"} for _ in range(2))
        self._overlap_rows: dict[str, list[list[str]]] = {split: [] for split in self._overlap}

    def watch(self, split: str, examples: Iterable[Example]) -> Iterator[Example]:
        """Yield the examples of a split, each looked at on its way."""
        for example in examples:
            self._look(split, example)
            yield example

    def found(self) -> dict[str, Any]:
        """Return the counts, as plain values for data.json.

        rows, empty_sources, empty_targets: by split, the last of texts to be written. control_tokens: rows in which the model's
        control tokens are found, by split. duplicates: training rows equal to one before; same_source: those that share only the
        source. overlap: evaluation rows whose source stands in training, whole_overlap: whose target does, too; both by split.
        overlap_rows: the places of such pairs, [evaluation row, training row], at most LISTED of each split.
        """
        sources, wholes = count_different(self._sources), count_different(self._wholes)
        return {
            "rows": self._rows,
            "empty_sources": self._empty_sources,
            "empty_targets": self._empty_targets,
            "control_tokens": self._controlling,
            "duplicates": len(self._wholes) - wholes,
            "same_source": wholes - sources,  # the first with each source shares it with none before
            "overlap": self._overlap,
            "whole_overlap": self._whole_overlap,
            "overlap_rows": self._overlap_rows,
        }

    def _look(self, split: str, example: Example) -> None:
        source = source_text(example)
        target = example.targets[0] if example.targets else ""
        self._rows[split] += 1
        self._controlling[split] += self._control is not None and any(
            map(self._control.search, (source, getattr(example, "context", None) or "", *example.targets))
        )
        self._empty_targets[split] += isinstance(example, TextExample) and not target.strip()
        if not source.strip():
            self._empty_sources[split] += 1
            return  # rows without a source would all be the same
        source_hash, whole_hash = hashes_of(source, target)
        if split != "train":
            self._held[source_hash].append((split, example.where))
            self._whole_held[whole_hash].append(split)
            return
        self._sources.append(source_hash)
        self._wholes.append(whole_hash)
        # What was found once is taken out: a row counts once, however often training repeats it.
        for place, where in self._held.pop(source_hash, ()):
            self._overlap[place] += 1
            if len(self._overlap_rows[place]) < LISTED:
                self._overlap_rows[place].append([where, example.where])
        for place in self._whole_held.pop(whole_hash, ()):
            self._whole_overlap[place] += 1


def sentences(found: Mapping[str, Any]) -> list[str]:
    """Say what an audit found, one sentence each; the first counts the rows, the rest is what is wrong."""
    rows = found["rows"]
    said = [", ".join(f"{count:,} {split}" for split, count in rows.items()) + " rows."]
    for key, what in (("empty_sources", "an empty source"), ("empty_targets", "an empty target")):
        said += [f"{count:,} of {rows[split]:,} {split} rows have {what}." for split, count in found[key].items() if count]
    said += [
        f"{count:,} of {rows[split]:,} {split} rows hold control tokens of the model's; task.control_tokens says how they are read."
        for split, count in found["control_tokens"].items()
        if count
    ]
    if found["duplicates"]:
        said.append(f"{found['duplicates']:,} of {rows['train']:,} training rows repeat one before them.")
    if found["same_source"]:
        said.append(
            f"{found['same_source']:,} of {rows['train']:,} training rows have the source of one before, with another target."
        )
    for split, count in found["overlap"].items():
        if count:
            said.append(
                f"{count:,} of {rows[split]:,} {split} sources also stand in training ({found['whole_overlap'][split]:,} with the same "
                f"target), such as {found['overlap_rows'][split][0][0]}: scores on them are memory."
            )
    return said


def source_text(example: Example) -> str:
    """Return the source as one text; of messages, their contents."""
    if isinstance(example.source, str):
        return example.source
    return "\n".join(message.content for message in example.source)


def hashes_of(source: str, target: str) -> tuple[int, int]:
    """Return 64 bits for a source, and for source and target, that texts share if they differ in case and white space only."""
    digest = hashlib.blake2b(alike(source), digest_size=8)
    first = digest.digest()
    digest.update(alike(target))
    return int.from_bytes(first, "big"), int.from_bytes(digest.digest(), "big")


def alike(text: str) -> bytes:
    """Return what texts share that differ in case, white space and ways to write a character."""
    plain = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return " ".join(plain.split()).encode() + b"\0"


def count_different(numbers: "array[int]") -> int:
    """Return how many different numbers there are; they are sorted where they stand."""
    if not numbers:
        return 0
    found = np.frombuffer(numbers, np.uint64)
    found.sort()
    return 1 + int(np.count_nonzero(found[1:] != found[:-1]))

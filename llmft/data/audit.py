"""What is wrong with the data as a whole: repeated, leaked and empty rows, counted and listed, none removed."""

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from llmft.data.example import Example, TextExample

LISTED = 100
"""Rows listed per kind; the counts are always whole."""


def audit(splits: Mapping[str, Iterable[Example]], control: re.Pattern[str] | None = None) -> dict[str, Any]:
    """Read every split once and return the counts, as plain values for data.json.

    rows, empty_sources, empty_targets: by split, the last of texts to be written. control_tokens: rows in which `control`, the
    model's control tokens, is found, by split. duplicates: training rows equal to one
    before; same_source: those that share only the source. overlap: evaluation rows whose source stands in training, whole_overlap: whose target does, too;
    both by split. overlap_rows: the places of such pairs, [evaluation row, training row], at most LISTED of each split.

    Texts are compared by 64-bit hashes, without regard to case and white space: memory is a few bytes per row.
    """
    rows, empty_sources, empty_targets, controlling = (dict.fromkeys(splits, 0) for _ in range(4))
    # The evaluation rows come first: training, the long one, can then be told from them as it passes by.
    held: dict[int, list[tuple[str, str]]] = defaultdict(list)
    whole_held: dict[int, list[str]] = defaultdict(list)
    duplicates = same_source = 0
    sources_seen: set[int] = set()
    wholes_seen: set[int] = set()
    overlap, whole_overlap = ({split: 0 for split in splits if split != "train"} for _ in range(2))
    overlap_rows: dict[str, list[list[str]]] = {split: [] for split in overlap}
    for split in sorted(splits, key=lambda split: split == "train"):
        for example in splits[split]:
            rows[split] += 1
            source = source_text(example)
            target = example.targets[0] if example.targets else ""
            empty_sources[split] += not source.strip()
            controlling[split] += control is not None and any(
                map(control.search, (source, getattr(example, "context", None) or "", *example.targets))
            )
            empty_targets[split] += isinstance(example, TextExample) and not target.strip()
            if not source.strip():
                continue  # rows without a source would all be the same
            source_hash, whole_hash = hash_of(source), hash_of(source, target)
            if split != "train":
                held[source_hash].append((split, example.where))
                whole_held[whole_hash].append(split)
                continue
            duplicates += whole_hash in wholes_seen
            same_source += source_hash in sources_seen and whole_hash not in wholes_seen
            sources_seen.add(source_hash)
            wholes_seen.add(whole_hash)
            # What was found once is taken out: a row counts once, however often training repeats it.
            for place, where in held.pop(source_hash, []):
                overlap[place] += 1
                if len(overlap_rows[place]) < LISTED:
                    overlap_rows[place].append([where, example.where])
            for place in whole_held.pop(whole_hash, []):
                whole_overlap[place] += 1
    return {
        "rows": rows,
        "empty_sources": empty_sources,
        "empty_targets": empty_targets,
        "control_tokens": controlling,
        "duplicates": duplicates,
        "same_source": same_source,
        "overlap": overlap,
        "whole_overlap": whole_overlap,
        "overlap_rows": overlap_rows,
    }


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


def hash_of(*texts: str) -> int:
    """Return 64 bits that texts share if they differ in case and white space only."""
    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        digest.update(" ".join(unicodedata.normalize("NFKC", text).casefold().split()).encode() + b"\0")
    return int.from_bytes(digest.digest(), "big")

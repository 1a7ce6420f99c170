"""The rows that are trained on, made from the Python standard library's own documentation: real text that every machine has."""

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import NormalDist
from typing import Any

from llmft.data.builtin.docstrings import digest, library
from llmft.data.builtin.topics import library_topics

CHARACTERS = (400, 2000)
"""Length of a document: with a chat template around it, a prompt of 100 to 600 tokens."""
VARIED = (200, 3500)
MEDIAN, SPREAD = 830, 0.62
"""Lengths of varied documents in characters: those of a log-normal distribution, within limits. Prompts of 250 tokens in the middle."""
PER_CONTEXT = 5
Row = dict[str, Any]


def summaries(characters: tuple[int, int] = CHARACTERS) -> list[Row]:
    """Return {document, summary}: what a docstring explains, and its first sentence."""
    found: dict[str, Row] = {}
    for docstring in library():
        head, _, body = docstring.text.partition("\n\n")
        summary, document = " ".join(head.split()), body.strip()
        if 20 <= len(summary) <= 160 and characters[0] <= len(document) <= characters[1]:
            found.setdefault(document, {"document": document, "summary": summary})
    return by_content(found.values())


def varied(count: int) -> list[Row]:
    """Return so many of them whose lengths are evenly spread quantiles of a log-normal distribution: most are short, a few much longer.

    Fewer where the library has fewer.
    """
    waiting, found, quantile = summaries(VARIED), [], NormalDist().inv_cdf
    for place in range(min(count, len(waiting))):
        goal = MEDIAN * math.exp(SPREAD * quantile((place + 0.5) / count))
        nearest = min(range(len(waiting)), key=lambda each: abs(len(waiting[each]["document"]) - goal))
        found.append(waiting.pop(nearest))
    return by_content(found)


def topics() -> list[Row]:
    """Return {text, label}: a docstring and the part of the library that it is from."""
    return by_content({"text": row.fields["text"], "label": row.fields["label"]} for row in library_topics()["train"])


def questions() -> list[Row]:
    """Return {context, question, answer}, PER_CONTEXT in a row on each context: which words follow others in it."""
    return [row for each in summaries() for row in asked_of(" ".join(each["document"].split()))]


def asked_of(context: str) -> list[Row]:
    """Return questions about places spread over a context; none where it is too short or repeats itself."""
    words = context.split(" ")
    gap = len(words) // PER_CONTEXT
    if gap < 8:
        return []
    rows = []
    for start in range(0, gap * PER_CONTEXT, gap):
        asked, answer = " ".join(words[start : start + 3]), " ".join(words[start + 3 : start + 6])
        if context.count(asked) > 1:
            return []
        rows.append({"context": context, "question": f'Which words follow "{asked}"?', "answer": answer})
    return rows


def pieces(rows: int, words: int) -> Iterator[Row]:
    """Yield {document, summary} of so many words each, cut one after the other from one running text, and numbered."""
    text = " ".join(row["document"] for row in summaries()).split()
    for number in range(rows):
        start = number * words % (len(text) - words)
        piece = text[start : start + words]
        yield {"document": f"{number}: {' '.join(piece)}", "summary": " ".join(piece[: min(12, words)])}


def by_content(rows: Iterable[Row]) -> list[Row]:
    """Order rows by a hash of what they say: the same on every machine with this Python, and no longer by module."""
    return sorted(rows, key=lambda row: digest(json.dumps(row, sort_keys=True)))


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)

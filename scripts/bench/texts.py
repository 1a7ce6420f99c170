"""The rows that are trained on, made from the Python standard library's own documentation: real text that every machine has."""

import json
import math
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from llmft.data.builtin.docstrings import digest, library
from llmft.data.builtin.topics import library_topics

CHARACTERS = (400, 2000)
"""Length of a document: with a chat template around it, a prompt of 100 to 600 tokens."""
VARIED = (200, 3500)
MEDIAN, SPREAD = 830, 0.62
"""Lengths in characters drawn from a log-normal distribution: prompts of 250 tokens in the middle, a few of nearly 1,000."""
DRAWN = 96
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


def varied() -> list[Row]:
    """Return as many of them as are DRAWN, with lengths as sets for summarization have them: most are short, and some much longer."""
    waiting, chance, found = summaries(VARIED), random.Random(0), []
    for _ in range(DRAWN):
        goal = chance.lognormvariate(math.log(MEDIAN), SPREAD)
        nearest = min(range(len(waiting)), key=lambda place: abs(len(waiting[place]["document"]) - goal))
        found.append(waiting.pop(nearest))
    return found


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

"""The built-in set standard_library: explanation -> summary, from the Python standard library's own documentation.

A docstring's first sentence says what a thing does, the rest explains it (PEP 257): a small real summarization task that
needs no download and carries no licence question.
"""

from collections.abc import Iterator
from typing import Any

from llmft.data.builtin.docstrings import digest, library, module_of, normalized, split_rows
from llmft.data.builtin.prose import is_prose, is_sentence
from llmft.data.row import Row


def standard_library() -> dict[str, list[Row]]:
    """Return train, validation and test rows {id, module, document, summary}, the same for every run of a Python version.

    Split by top-level module, so that train and test share no module; rows that share eight words in a row with a row
    of a later split are left out of the earlier one.
    """
    rows = []
    for docstring in library():
        fields = summarized(docstring.text)
        if fields:
            rows.append(Row({"id": docstring.name, "module": docstring.module, **fields}, docstring.where))
    unique = without_duplicates(sorted(rows, key=lambda row: digest(row.fields["id"])))
    return split_rows(unique, "standard_library", ("document", "summary"), module_of)


def summarized(docstring: str) -> dict[str, Any] | None:
    """Cut a docstring into summary and document; None if either is no clean text."""
    head, _, body = docstring.partition("\n\n")
    summary = " ".join(head.split())
    document = "\n".join(line.rstrip() for line in body.strip().splitlines())
    if not is_sentence(summary) or not is_prose(document) or normalized(summary) in normalized(document):
        return None
    return {"document": document, "summary": summary}


def without_duplicates(rows: list[Row]) -> Iterator[Row]:
    """Yield rows whose name, summary and document are all new; a property and its setter have one name."""
    seen: set[str] = set()
    for row in rows:
        texts = {row.fields["id"], normalized(row.fields["summary"]), normalized(row.fields["document"])}
        if not texts & seen:
            yield row
        seen |= texts

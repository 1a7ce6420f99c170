"""The built-in set library_text: prose about Python's library, from its own documentation, for language models."""

from collections.abc import Iterator

from llmft.data.builtin.docstrings import Docstring, library, module_of, normalized, split_rows
from llmft.data.builtin.prose import flowed, is_prose, paragraphs
from llmft.data.row import Row

PARAGRAPH_CHARACTERS = (40, 2000)
PARAGRAPH_WORDS = 6
LEAST_CHARACTERS = 150


def library_text() -> dict[str, list[Row]]:
    """Return train, validation and test rows {id, module, text}: the prose paragraphs of a docstring, blank lines between.

    Split by top-level module, without eight words in a row in common, the same for every run of a Python version.
    """
    return split_rows(rows(library()), "library_text", ("text",), module_of)


def rows(found: tuple[Docstring, ...]) -> Iterator[Row]:
    """Yield a row per docstring with enough prose; a paragraph that stood before is left out, for much is said twice."""
    seen: set[str] = set()
    names: set[str] = set()
    for docstring in found:
        kept = []
        for paragraph in map(flowed, paragraphs(docstring.text)):
            if is_prose(paragraph, PARAGRAPH_CHARACTERS, PARAGRAPH_WORDS) and normalized(paragraph) not in seen:
                seen.add(normalized(paragraph))
                kept.append(paragraph)
        text = "\n\n".join(kept)
        if len(text) >= LEAST_CHARACTERS and docstring.name not in names:
            names.add(docstring.name)
            yield Row({"id": docstring.name, "module": docstring.module, "text": text}, docstring.where)

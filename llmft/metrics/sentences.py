"""Cutting text into sentences, the same way wherever a score or a baseline needs it."""

import re

# A sentence ends at . ! ? (with closing quotes or brackets) before white space and something that can begin a new one.
END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])")
PARAGRAPH = re.compile(r"\n\s*\n")


def split_sentences(text: str) -> list[str]:
    """Split text into sentences; a blank line ends one too, a single line break does not."""
    paragraphs = [" ".join(part.split()) for part in PARAGRAPH.split(text)]
    return [sentence for part in paragraphs if part for sentence in END.split(part)]

"""Cutting text into sentences, the same way wherever a score or a baseline needs it."""

import regex

PARAGRAPH = regex.compile(r"\n\s*\n")
# A sentence ends at . ! ? (with closing quotes or brackets) before white space and something that can begin a new one:
# a capital, a digit, or a letter of a script that has no capitals.
END = regex.compile(r"(?<=[.!?])[\"'\p{Pe}\p{Pf}]*\s+(?=[\"'\p{Ps}\p{Pi}\u00a1\u00bf]?[\p{Lu}\p{Lt}\p{Lo}\p{N}])")
# Other scripts' full stops and question marks end one wherever they stand, spaces or not: Chinese, Arabic, Devanagari ...
# The wide full stop U+FF0E stands in numbers, too.
STOP = regex.compile(r"([\p{Sentence_Terminal}--[.!?\uff0e]]+[\"'\p{Pe}\p{Pf}]*)\s*", regex.V1)


def split_sentences(text: str) -> list[str]:
    """Split text into sentences; a blank line ends one too, a single line break does not."""
    paragraphs = [" ".join(part.split()) for part in PARAGRAPH.split(text)]
    parts = [part for paragraph in paragraphs for part in STOP.sub(r"\1\n", paragraph).split("\n") if part]
    return [sentence for part in parts for sentence in END.split(part)]

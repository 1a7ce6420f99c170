"""What in a documentation string is prose, and what is a signature, a doctest, a table or a list of names."""

import re

SUMMARY_CHARACTERS = (20, 160)
DOCUMENT_CHARACTERS = (120, 1500)

SENTENCE_BREAK = re.compile(r"[.!?:;]\s+[A-Z]")
SIGNATURE = re.compile(r"^[\w.]+\(.*?\)|->|^\w+\s*=|`{3}|>>>")


def is_sentence(text: str) -> bool:
    """Whether `text` is one plain sentence of several words, not a signature or a heading."""
    shortest, longest = SUMMARY_CHARACTERS
    return (
        shortest <= len(text) <= longest
        and text.endswith(".")
        and text[0].isupper()
        and len(text.split()) >= 4
        and not SENTENCE_BREAK.search(text)
        and not SIGNATURE.search(text)
    )


def is_prose(text: str, characters: tuple[int, int] = DOCUMENT_CHARACTERS, words: int = 20) -> bool:
    """Whether `text` reads as sentences rather than as a doctest, a table or a list of names."""
    shortest, longest = characters
    lines = [line for line in text.splitlines() if line.strip()]
    indented = sum(line.startswith((" ", ">>>", "...")) for line in lines)
    letters = sum(character.isalpha() or character in " \n,." for character in text)
    return (
        shortest <= len(text) <= longest
        and len(text.split()) >= words
        and indented <= len(lines) / 2
        and letters >= 0.9 * len(text)
        and bool(re.search(r"[a-z)][.!?](\s|$)", text))
    )


def paragraphs(docstring: str) -> list[str]:
    """Return the paragraphs of a docstring, without the white space around them."""
    return [part.strip() for part in re.split(r"\n[ \t]*\n", docstring) if part.strip()]


def flowed(paragraph: str) -> str:
    """Return a paragraph on one line."""
    return " ".join(paragraph.split())

"""The built-in set: summaries of the Python standard library, made at run time from its own docstrings.

A docstring's first sentence says what a thing does, the rest explains it (PEP 257): explanation -> summary is a small
real summarization task that needs no download and carries no licence question. Sources are parsed, never imported.
"""

import ast
import hashlib
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmft.data.row import Row
from llmft.errors import DataError

# Not every installation has these (distributions package them apart), or they hold no documentation of the library.
LEFT_OUT = {
    "distutils", "ensurepip", "idlelib", "lib2to3", "tkinter", "turtle", "turtledemo",
    "site-packages", "dist-packages", "test", "tests", "__pycache__",
}  # fmt: skip
SUMMARY_CHARACTERS = (20, 160)
DOCUMENT_CHARACTERS = (120, 1500)
OVERLAP_WORDS = 8
"""Two rows that have this many words in a row in common may not stand on both sides of a split."""

SENTENCE_BREAK = re.compile(r"[.!?:;]\s+[A-Z]")
SIGNATURE = re.compile(r"^[\w.]+\(.*?\)|->|^\w+\s*=|`{3}|>>>")


def standard_library() -> dict[str, list[Row]]:
    """Return train, validation and test rows {id, module, document, summary}, the same for every run of a Python version.

    Split by top-level module, so that train and test share no module; rows that share eight words in a row with a row
    of a later split are left out of the earlier one.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    splits: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for row in without_duplicates(sorted(rows_of(root), key=lambda row: digest(row.fields["id"]))):
        splits[split_of(row.fields["module"])].append(row)
    splits["validation"] = without_overlap(splits["validation"], splits["test"])
    splits["train"] = without_overlap(splits["train"], splits["test"] + splits["validation"])
    if not all(splits.values()):
        raise DataError(
            f"{root}: the built-in set standard_library found too few docstrings in Python's library; this Python comes "
            "without the library's .py files. Use another Python, or name files of your own in task.data.train."
        )
    return splits


def split_of(module: str) -> str:
    """Choose a split by the top-level module; _pydecimal and decimal, _pyio and io are the same."""
    top = module.split(".")[0]
    bucket = int(digest(re.sub("^_(py)?", "", top))[:8], 16) % 100
    return "test" if bucket < 20 else "validation" if bucket < 32 else "train"


def rows_of(root: Path) -> Iterator[Row]:
    """Yield one row per docstring below `root` that has a sentence as summary and prose to summarise."""
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if LEFT_OUT & set(parts) or "-" in parts[0]:
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue  # a file the running Python cannot parse documents nothing
        module = ".".join(parts).removesuffix(".__init__")
        where = "Lib/" + path.relative_to(root).as_posix()
        for name, line, docstring in docstrings(tree, module):
            fields = summarized(docstring)
            if fields:
                yield Row({"id": name, "module": module, **fields}, f"{where}:{line}")


def docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, int, str]]:
    """Yield qualified name, line and text of every docstring in `node`, outermost first."""
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        text = ast.get_docstring(node)
        if text:
            yield name, node.body[0].lineno, text
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from docstrings(child, f"{name}.{child.name}")
        elif isinstance(child, (ast.stmt, ast.ExceptHandler)):  # expressions, most of a tree, define nothing
            yield from docstrings(child, name)


def summarized(docstring: str) -> dict[str, Any] | None:
    """Cut a docstring into summary and document; None if either is no clean text."""
    head, _, body = docstring.partition("\n\n")
    summary = " ".join(head.split())
    document = "\n".join(line.rstrip() for line in body.strip().splitlines())
    if not is_sentence(summary) or not is_prose(document) or normalized(summary) in normalized(document):
        return None
    return {"document": document, "summary": summary}


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


def is_prose(text: str) -> bool:
    """Whether `text` reads as sentences rather than as a doctest, a table or a list of names."""
    shortest, longest = DOCUMENT_CHARACTERS
    lines = [line for line in text.splitlines() if line.strip()]
    indented = sum(line.startswith((" ", ">>>", "...")) for line in lines)
    letters = sum(character.isalpha() or character in " \n,." for character in text)
    return (
        shortest <= len(text) <= longest
        and len(text.split()) >= 20
        and indented <= len(lines) / 2
        and letters >= 0.9 * len(text)
        and bool(re.search(r"[a-z)][.!?](\s|$)", text))
    )


def without_duplicates(rows: list[Row]) -> Iterator[Row]:
    """Yield rows whose name, summary and document are all new; a property and its setter have one name."""
    seen: set[str] = set()
    for row in rows:
        texts = {row.fields["id"], normalized(row.fields["summary"]), normalized(row.fields["document"])}
        if not texts & seen:
            yield row
        seen |= texts


def without_overlap(rows: list[Row], others: list[Row]) -> list[Row]:
    """Return the rows that share no run of OVERLAP_WORDS words with any of `others`."""
    taken = set().union(*(runs_of_words(row) for row in others))
    return [row for row in rows if not runs_of_words(row) & taken]


def runs_of_words(row: Row) -> set[str]:
    """Return every run of OVERLAP_WORDS words in a row's document and summary, normalised."""
    runs = set()
    for text in (row.fields["document"], row.fields["summary"]):
        words = normalized(text).split()
        runs |= {" ".join(words[i : i + OVERLAP_WORDS]) for i in range(len(words) - OVERLAP_WORDS + 1)}
    return runs


def normalized(text: str) -> str:
    """Return the words of `text` in lower case, without punctuation."""
    return " ".join(re.findall(r"\w+", text.lower()))


def digest(text: str) -> str:
    """Return a hash that orders rows without a random state."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

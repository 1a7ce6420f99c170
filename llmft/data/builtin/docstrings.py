"""Documentation strings of the Python standard library: real text that every machine has, read at run time, never copied.

Sources are parsed, never imported. Built-in sets are made from them and split so that nothing is on both sides.
"""

import ast
import hashlib
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from llmft.data.row import Row
from llmft.errors import DataError

# Not every installation has these (distributions package them apart), or they hold no documentation of the library.
LEFT_OUT = {
    "distutils", "ensurepip", "idlelib", "lib2to3", "tkinter", "turtle", "turtledemo",
    "site-packages", "dist-packages", "test", "tests", "__pycache__",
}  # fmt: skip
OVERLAP_WORDS = 8
"""Two rows that have this many words in a row in common may not stand on both sides of a split."""


@dataclass(frozen=True)
class Docstring:
    """What a module, class or function says of itself; `arguments` are a function's by name, None for the others."""

    name: str
    module: str
    where: str
    text: str
    arguments: tuple[str, ...] | None

    @property
    def public(self) -> bool:
        """Whether no part of the name begins with an underscore."""
        return not any(part.startswith("_") for part in self.name.split("."))


@cache
def library() -> tuple[Docstring, ...]:
    """Return every docstring of the library, in the order of the files' names."""
    root = library_folder()
    return tuple(docstring for path in sorted(root.rglob("*.py")) for docstring in read_module(path, root))


def library_folder() -> Path:
    """Return where the library's .py files are."""
    return Path(sysconfig.get_paths()["stdlib"])


def read_module(path: Path, root: Path) -> Iterator[Docstring]:
    """Yield the docstrings of a file below `root`."""
    parts = path.relative_to(root).with_suffix("").parts
    if LEFT_OUT & set(parts) or "-" in parts[0]:
        return
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return  # a file the running Python cannot parse documents nothing
    module = ".".join(parts).removesuffix(".__init__")
    where = "Lib/" + path.relative_to(root).as_posix()
    for name, node, text in docstrings(tree, module):
        names = None
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names = tuple(each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs))
        yield Docstring(name, module, f"{where}:{node.body[0].lineno}", text, names)


Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, Documented, str]]:
    """Yield qualified name, node and text of every docstring in `node`, outermost first."""
    if isinstance(node, Documented):
        text = ast.get_docstring(node)
        if text:
            yield name, node, text
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from docstrings(child, f"{name}.{child.name}")
        elif isinstance(child, (ast.stmt, ast.ExceptHandler)):  # expressions, most of a tree, define nothing
            yield from docstrings(child, name)


def split_rows(
    rows: Iterable[Row], builtin: str, columns: tuple[str, ...], group: Callable[[Row], str]
) -> dict[str, list[Row]]:
    """Return train, validation and test rows, the same for every run of a Python version.

    Rows of one `group` are in one split; rows that share eight words in a row, in any of `columns`, with a row of a later
    split are left out of the earlier one. Raises DataError if that leaves a split without rows.
    """
    splits: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for row in sorted(rows, key=lambda row: digest(row.fields["id"])):
        splits[split_of(group(row))].append(row)
    splits["validation"] = without_overlap(splits["validation"], splits["test"], columns)
    splits["train"] = without_overlap(splits["train"], splits["test"] + splits["validation"], columns)
    if not all(splits.values()):
        raise DataError(
            f"{library_folder()}: the built-in set {builtin} found too few docstrings in Python's library; this Python comes "
            "without the library's .py files. Use another Python, or name files of your own in task.data.train."
        )
    return splits


def split_of(name: str) -> str:
    """Choose a split by the first part of a name; _pydecimal and decimal, _pyio and io are the same."""
    bucket = int(digest(re.sub("^_(py)?", "", name.split(".")[0]))[:8], 16) % 100
    return "test" if bucket < 20 else "validation" if bucket < 32 else "train"


def module_of(row: Row) -> str:
    """Return the module that a row is from, for groups."""
    return str(row.fields["module"])


def without_overlap(rows: list[Row], others: list[Row], columns: tuple[str, ...]) -> list[Row]:
    """Return the rows that share no run of OVERLAP_WORDS words with any of `others`."""
    taken: set[str] = set().union(*(runs_of_words(row, columns) for row in others))
    return [row for row in rows if not runs_of_words(row, columns) & taken]


def runs_of_words(row: Row, columns: tuple[str, ...]) -> set[str]:
    """Return every run of OVERLAP_WORDS words in the given columns of a row, normalised."""
    runs = set()
    for column in columns:
        words = normalized(row.fields[column]).split()
        runs |= {" ".join(words[i : i + OVERLAP_WORDS]) for i in range(len(words) - OVERLAP_WORDS + 1)}
    return runs


def normalized(text: str) -> str:
    """Return the words of `text` in lower case, without punctuation."""
    return " ".join(re.findall(r"\w+", text.lower()))


def digest(text: str) -> str:
    """Return a hash that orders rows without a random state."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

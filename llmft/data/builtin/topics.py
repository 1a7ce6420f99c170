"""The built-in set library_topics: which part of Python's library a documentation string is from, told by what it says.

The topic is the package's, not the text's: some texts, such as "Return the default.", could be from anywhere. Texts in which
a part of their module's name stands are left out: what is to be told is nowhere written.
"""

import re
from collections.abc import Iterator

from llmft.data.builtin.docstrings import Docstring, library, normalized, split_rows
from llmft.data.builtin.prose import flowed, paragraphs
from llmft.data.row import Row

TOPICS = {
    "concurrency": ("asyncio", "concurrent", "multiprocessing", "queue", "sched", "selectors", "subprocess", "threading"),
    "files": ("bz2", "fileinput", "glob", "gzip", "io", "lzma", "os", "pathlib", "shutil", "tarfile", "tempfile", "zipfile"),
    "language": ("ast", "dis", "enum", "importlib", "inspect", "pkgutil", "symtable", "tokenize", "types", "typing"),
    "mail": ("email", "imaplib", "mailbox", "poplib", "smtplib"),
    "mathematics": ("decimal", "fractions", "heapq", "numbers", "operator", "random", "statistics"),
    "testing": (
        "bdb",
        "doctest",
        "logging",
        "pdb",
        "profile",
        "pstats",
        "timeit",
        "trace",
        "traceback",
        "unittest",
        "warnings",
    ),
    "web": ("cgi", "ftplib", "html", "http", "ipaddress", "socket", "socketserver", "ssl", "urllib", "wsgiref", "xmlrpc"),
}
"""Top-level modules by topic; _pydecimal stands for decimal, _pyio for io. What has no clear topic is not here."""
PACKAGES = {package: topic for topic, packages in TOPICS.items() for package in packages}
CHARACTERS = (60, 600)
WORDS = 10


def library_topics() -> dict[str, list[Row]]:
    """Return train, validation and test rows {id, module, text, label}, the same for every run of a Python version.

    Split by class and module, for a topic has few packages; without eight words in a row in common.
    """
    return split_rows(rows(library()), "library_topics", ("text",), owner_of)


def rows(found: tuple[Docstring, ...]) -> Iterator[Row]:
    """Yield a row per docstring of a package with a topic, cut to its first paragraphs."""
    seen: set[str] = set()
    for docstring in found:
        topic = PACKAGES.get(top_of(docstring.module))
        text = beginning(docstring.text)
        if topic and text and not names_module(text, docstring.module) and not {normalized(text), docstring.name} & seen:
            seen |= {normalized(text), docstring.name}
            yield Row({"id": docstring.name, "module": docstring.module, "text": text, "label": topic}, docstring.where)


def top_of(module: str) -> str:
    """Return the top-level module, of a Python version of a C module the latter's name."""
    return re.sub("^_(py)?", "", module.split(".")[0])


def beginning(docstring: str) -> str:
    """Return the first paragraphs that fit, on one line each; nothing if they are too short to tell anything by."""
    text = ""
    for paragraph in map(flowed, paragraphs(docstring)):
        if ">>>" in paragraph or len(text) + len(paragraph) > CHARACTERS[1]:
            break
        text = f"{text}\n{paragraph}".strip()
    return text if len(text) >= CHARACTERS[0] and len(text.split()) >= WORDS else ""


def names_module(text: str, module: str) -> bool:
    """Whether a part of the module's name stands in the text, also within another word: mailbox in mailboxes."""
    parts = [part.strip("_") for part in (top_of(module), *module.split("."))]
    return any(part and part.lower() in text.lower() for part in parts)


def owner_of(row: Row) -> str:
    """Return the module and the class or function in it that a row belongs to: its methods stay together."""
    inside = row.fields["id"].removeprefix(row.fields["module"]).split(".")
    return f"{row.fields['module']}.{inside[1] if len(inside) > 1 else ''}".replace(".", "/")

"""Data files as the laboratory writes them: good rows, how each format writes them, and what has to come of a file."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmft.config.schema import Data, Task
from llmft.data.dataset import open_splits
from llmft.tasks.bound import bind_task

Pair = tuple[str, str]
Lines = list[bytes]

ROWS: list[Pair] = [
    ("NA", "001"),
    ("null", "1e5"),
    ('x, "y"', "9223372036854775809"),
    ("é \u2028 \U0001f600", " nan"),
    ("-0", "True"),
    ("the last", "0.10"),
]
"""Source and target of good rows: texts that a careless reader takes for something else."""
PLACES = (0, 2, len(ROWS) - 1)


@dataclass(frozen=True)
class Case:
    """A file, or several, and what has to come of it: these rows from these lines, or an error at `where` that says `said`."""

    name: str
    files: dict[str, bytes]
    rows: list[tuple[str, ...]] | None = None
    lines: list[int] | None = None
    where: str = ""
    said: str = ""
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of task.data; the first file is what is trained on unless they say otherwise."""
        return {"train": [next(iter(self.files))], "holdout": 0.0} | self.data

    def write(self, folder: Path) -> None:
        """Write the files."""
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)


def examples(settings: dict[str, Any]) -> list[tuple[tuple[str, ...], str]]:
    """Return source and targets of every row, with its place: read, and filled into the templates {a} and {b}."""
    task = Task(source="{a}", target="{b}", data=Data(**settings))
    rows = open_splits(task.data, None)["train"]
    formulation = bind_task(task, []).formulation(task, bind_task(task, []), 42)
    return [((each.source, *each.targets), each.where) for each in formulation.examples(rows)]


def json_line(pair: Pair) -> bytes:
    return json.dumps({"a": pair[0], "b": pair[1]}, ensure_ascii=False).encode()


def csv_line(pair: Pair) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(pair)
    return out.getvalue().encode()


def tsv_line(pair: Pair) -> bytes:
    return "\t".join(pair).encode()


@dataclass(frozen=True)
class Format:
    """How a kind of file writes rows: lines above them, one line for each, an end to all but the last, and lines below."""

    ending: str
    line: Callable[[Pair], bytes]
    above: bytes = b""
    between: bytes = b""
    below: bytes = b""
    zipped: bool = False

    @property
    def first(self) -> int:
        """Line of the first row."""
        return 1 + self.above.count(b"\n")

    @property
    def name(self) -> str:
        return f"train{self.ending}{'.gz' * self.zipped}"

    def lines(self, rows: list[Pair] = ROWS) -> Lines:
        """Return a line for each row, without its end."""
        return [self.line(row) + self.between * (number < len(rows)) for number, row in enumerate(rows, 1)]

    def joined(self, lines: Lines, end: bytes = b"\n", last: bytes | None = None) -> bytes:
        """Return the file of these lines, their ends as given."""
        body = b"".join(line + end for line in lines[:-1]) + b"".join(lines[-1:]) + (end if last is None else last)
        return self.above.replace(b"\n", end) + body + self.below

    def packed(self, content: bytes) -> bytes:
        """Return the content as it is on the disk."""
        return gzip.compress(content, mtime=0) if self.zipped else content


JSONL = Format(".jsonl", json_line)
JSON = Format(".json", json_line, b"[\n", b",", b"]\n")
CSV = Format(".csv", csv_line, b"a,b\n")
TSV = Format(".tsv", tsv_line, b"a\tb\n")
TEXTS = [JSONL, JSON, CSV, TSV]
FORMATS = TEXTS + [Format(each.ending, each.line, each.above, each.between, each.below, zipped=True) for each in TEXTS]
NUMBERS = list(range(len(ROWS)))


def accepted(name: str, form: Format, content: bytes, rows: Any = None, lines: Any = None, **data: Any) -> Case:
    """A file whose rows are these, or else the good ones on the lines where they always are."""
    lines = [form.first + number for number in NUMBERS] if rows is None and lines is None else lines
    return Case(f"{form.name}: {name}", {form.name: form.packed(content)}, rows or list(ROWS), lines, data=data)


def refused(name: str, form: Format, content: bytes, line: int | None, said: str, **data: Any) -> Case:
    """A file that is refused at a line, or as a whole."""
    where = form.name if line is None else f"{form.name}:{line}"
    return Case(f"{form.name}: {name}", {form.name: form.packed(content)}, None, None, where, said, data)


def changed(lines: Lines, place: int, line: bytes) -> Lines:
    """Return the lines with one of them replaced."""
    return [*lines[:place], line, *lines[place + 1 :]]


def numbered(cases: Iterator[Case]) -> list[Case]:
    """Return all cases, in their order; two of one name would hide each other."""
    found = list(cases)
    assert len({case.name for case in found}) == len(found), [case.name for case in found]
    return found

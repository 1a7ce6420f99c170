"""Tables, folders and parallel text by hand: columns that do not hold text, shards that differ, lines that have no partner."""

import datetime
import decimal
import gzip
import io
from collections.abc import Iterator
from typing import Any

import pyarrow
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet
from data_case import CSV, JSONL, NUMBERS, ROWS, Case

A, B = ([row[column] for row in ROWS] for column in (0, 1))
MOMENT = datetime.datetime(2020, 1, 2, 3, 4, 5)

COLUMNS: dict[str, tuple[Any, str]] = {
    "null in row 3": (pyarrow.array([*A[:2], None, *A[3:]]), ":row 3: column 'a' is null; expected text"),
    "nothing but null": (pyarrow.nulls(len(A)), ":row 1: column 'a' is null"),
    "NUL in row 2": (pyarrow.array([A[0], "x\0y", *A[2:]]), ":row 2: NUL character in 'x\\x00y'"),
    "NaN in row 6": (pyarrow.array([1.0, 2, 3, 4, 5, float("nan")]), ":row 6: column 'a' is float nan"),
    "infinity": (pyarrow.array([float("inf")] * 6), ":row 1: column 'a' is float inf"),
    "bytes": (pyarrow.array([b"x\xff"] * 6), ":row 1: column 'a' is bytes"),
    "dates": (pyarrow.array([MOMENT.date()] * 6), ":row 1: column 'a' is date"),
    "times": (pyarrow.array([MOMENT] * 6), ":row 1: column 'a' is datetime"),
    "decimals": (pyarrow.array([decimal.Decimal("1.10")] * 6), ":row 1: column 'a' is Decimal"),
    "objects": (pyarrow.array([{"k": "x"}] * 6), ":row 1: column 'a' is an object with k"),
    "maps": (pyarrow.array([[("k", 1)]] * 6, pyarrow.map_(pyarrow.string(), pyarrow.int64())), ":row 1: column 'a' is a list"),
    "empty lists": (pyarrow.array([["x"]] * 4 + [[], ["y"]]), ":row 5: column 'a' is an empty list"),
    "lists with null": (pyarrow.array([["x"]] * 3 + [[None]] * 3), ":row 4: column 'a' is a list of 1"),
}
KEPT: dict[str, tuple[Any, list[tuple[str, ...]]]] = {
    "texts": (pyarrow.array(A), [(a,) for a in A]),
    "large texts": (pyarrow.array(A, pyarrow.large_string()), [(a,) for a in A]),
    "dictionary": (pyarrow.array(A).dictionary_encode(), [(a,) for a in A]),
    "whole numbers": (
        pyarrow.array([2**63 + 1, 0, 1, 2, 3, 4], pyarrow.uint64()),
        [(str(n),) for n in (2**63 + 1, 0, 1, 2, 3, 4)],
    ),
    "numbers": (
        pyarrow.array([0.1, 1.0, -0.0, 1e300, 5e-324, 2.5]),
        [(n,) for n in ("0.1", "1.0", "-0.0", "1e+300", "5e-324", "2.5")],
    ),
    "truth values": (pyarrow.array([True, False] * 3), [("true",), ("false",)] * 3),
    "lists": (pyarrow.array([["x", "y"]] * 6), [("x y",)] * 6),
}


def parquet(table: pyarrow.Table, **options: Any) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(table, out, **options)
    return out.getvalue()


def feather(table: pyarrow.Table) -> bytes:
    out = io.BytesIO()
    pyarrow.feather.write_feather(table, out)
    return out.getvalue()


def stream(table: pyarrow.Table) -> bytes:
    out = io.BytesIO()
    with pyarrow.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


WRITERS = {"t.parquet": parquet, "t.feather": feather, "t.arrow": stream}
GOOD = pyarrow.table({"a": A, "b": B})


def cases() -> Iterator[Case]:
    """Yield all of them."""
    for name, write in WRITERS.items():
        yield from tables(name, write)
    yield from shards()
    yield from parallel()


def tables(name: str, write: Any) -> Iterator[Case]:
    """Files of tables."""

    def refused(what: str, content: bytes, said: str) -> Case:
        return Case(f"{name}: {what}", {name: content}, None, None, name, said)

    for what, (column, said) in COLUMNS.items():
        yield refused(what, write(pyarrow.table({"a": column, "b": B})), said)
    for what, (column, values) in KEPT.items():
        rows = [(*value, b) for value, b in zip(values, B, strict=True)]
        yield Case(f"{name}: {what}", {name: write(pyarrow.table({"a": column, "b": B, "c": [MOMENT] * 6}))}, rows)
    yield refused("no such column", write(pyarrow.table({"c": A, "b": B})), ":row 1: no column 'a'; the row has c, b.")
    twice = pyarrow.Table.from_arrays([pyarrow.array(A), pyarrow.array(B)], names=["a", "a"])
    if name != "t.feather":  # which cannot be written so
        yield refused("a name twice", write(twice), ":schema: two columns are named 'a'")
    yield refused("no name", write(pyarrow.table({"a": A, "": B})), ":schema: column 2 has no name")
    yield refused("no rows", write(GOOD.slice(0, 0)), ": no rows for train; expected at least one")
    good = write(GOOD)
    for what, content in {
        "zero bytes": b"",
        "text": b"a,b\nx,y\n",
        "the first half": good[: len(good) // 2],
        "the second half": good[len(good) // 2 :],
        "zeros": bytes(len(good)),
        "the mark alone": good[:6],
        "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    }.items():
        if not (name == "t.arrow" and what in ("zero bytes", "zeros")):
            yield refused(what, content, ": not a readable ")
    flipped = bytearray(parquet(GOOD, compression="none", write_page_checksum=True, use_dictionary=False))
    flipped[flipped.index(b"the last")] ^= 1
    if name == "t.parquet":
        yield refused(
            "a bit flipped under a checksum", bytes(flipped), ": not a readable parquet file: could not verify page integrity"
        )


def shards() -> Iterator[Case]:
    """Folders, whose files have to agree."""
    numbers = pyarrow.table({"a": range(6), "b": B})
    wider = pyarrow.table({"c": [MOMENT] * 6, "b": B, "a": A})
    for ending, good, others in (
        ("parquet", parquet(GOOD), {"numbers": parquet(numbers), "another column": parquet(GOOD.rename_columns(["c", "b"])),
                                    "damaged": parquet(GOOD)[:-9], "wider": parquet(wider)}),
        ("jsonl", JSONL.joined(JSONL.lines()), {"numbers": b'{"a": 1, "b": "y"}\n', "another column": b'{"c": "x", "b": "y"}\n',
                                                "damaged": b'{"a": "x', "wider": JSONL.joined(JSONL.lines())}),
        ("csv", CSV.joined(CSV.lines()), {"another column": b"c,b\nx,y\n", "damaged": b'a,b\n"x', "no names": b"x,y\n",
                                          "wider": b"a,b,c\n" + b"\n".join(line + b",1" for line in CSV.lines())}),
    ):  # fmt: skip
        said = {
            "numbers": "column 'a' is a number (",
            "another column": "no column 'a'; the row has c, b.",
            "damaged": "",
            "no names": "no rows",
        }
        for what, other in others.items():
            names = [f"set/train-0000{number}-of-00002.{ending}" for number in (0, 1)]
            files = dict(zip(names, (good, other), strict=True))
            if what == "wider":
                yield Case(f"folder: {ending} {what}", files, [*ROWS, *ROWS], data={"train": ["set"]})
            elif (
                what == "no names"
            ):  # a file without rows among others is none that is refused: nothing tells its names from a row
                yield Case(f"folder: {ending} {what}", files, list(ROWS), data={"train": ["set"]})
            else:
                where = names[1] if what == "damaged" else f"{names[1]}:"
                yield Case(f"folder: {ending} {what}", files, None, None, where, said[what], {"train": ["set"]})
    jsonl = JSONL.joined(JSONL.lines())
    for what, names, said in (
        (
            "two that could be it",
            ("set/dev.jsonl", "set/val.jsonl"),
            "dev.jsonl and val.jsonl could both be the validation split",
        ),
        ("no split", ("set/other.jsonl", "set/more.jsonl"), "no file named train, validation or test in the folder"),
        ("another split", ("set/test.jsonl", "set/dev.jsonl"), "no train split; it has"),
    ):
        files = dict.fromkeys(names, jsonl)
        yield Case(f"folder: {what}", files, None, None, "task.data.train=set", said, {"train": ["set"]})
    mixed = {"one.jsonl": b'{"a": 1, "b": "y"}\n', "two.csv": CSV.joined(CSV.lines())}
    yield Case("folder: numbers, then cells", mixed, None, None, "two.csv:2", "column 'a' is text ('NA'), but a number in one.jsonl:1",
               {"train": list(mixed)})  # fmt: skip


def parallel() -> Iterator[Case]:
    """Two text files, line by line."""
    rows = [(a.replace("\n", " "), b) for a, b in ROWS]
    left, right = ([row[column].encode() for row in rows] for column in (0, 1))
    data = {"train": {"a": "t.en", "b": "t.de"}}

    def text(lines: list[bytes], end: bytes = b"\n") -> bytes:
        return b"".join(line + end for line in lines)

    def refused(what: str, en: bytes, de: bytes, where: str, said: str) -> Case:
        return Case(f"parallel: {what}", {"t.en": en, "t.de": de}, None, None, where, said, data)

    good = {"t.en": text(left), "t.de": text(right)}
    lines = [number + 1 for number in NUMBERS]
    yield Case("parallel: good", good, rows, lines, data=data)
    yield Case("parallel: CRLF on one side", good | {"t.de": text(right, b"\r\n")}, rows, lines, data=data)
    yield Case("parallel: marks", {name: b"\xef\xbb\xbf" + content for name, content in good.items()}, rows, lines, data=data)
    yield Case("parallel: no last end", good | {"t.de": text(right)[:-1]}, rows, lines, data=data)
    zipped = {"t.en": text(left), "t.de.gz": gzip.compress(text(right))}
    yield Case("parallel: one packed", zipped, rows, lines, data={"train": {"a": "t.en", "b": "t.de.gz"}})
    both = {"t.en": text([*left[:2], b"", *left[2:]]), "t.de": text([*right[:2], b" ", *right[2:]])}
    yield Case("parallel: blank in both", both, rows, [1, 2, 4, 5, 6, 7], data=data)
    yield refused(
        "one line more", text([*left, b"x"]), text(right), "t.en has 7 lines", "t.de has 6 lines; parallel files need"
    )
    yield refused("one line less", text(left), text(right[:-1]), "t.en has 6 lines", "t.de has 5 lines")
    yield refused("zero bytes", text(left), b"", "t.en has 6 lines", "t.de has 0 lines")
    yield refused("both zero bytes", b"", b"", "t.en + t.de", "no rows for train")
    for place in (0, 3, 5):
        for what, line, said in (
            ("blank", b"  ", "the line is blank in t.de, not in the rest"),
            ("bad bytes", b"\xff", "byte 0xff at byte offset"),
            ("NUL", b"x\0", "NUL character at byte offset"),
        ):
            at = f"t.en:{place + 1}" if what == "blank" else f"t.de:{place + 1}"
            yield refused(
                f"{what} in line {place + 1}", text(left), text([*right[:place], line, *right[place + 1 :]]), at, said
            )
    yield refused("UTF-16", text(left), text(right).decode().encode("utf-16"), "t.de:1", "the file is UTF-16 text")
    cut = {"t.en": text(left), "t.de.gz": gzip.compress(text(right))[:-9]}
    yield Case("parallel: one cut", cut, None, None, "t.de.gz", "cannot be read: Compressed file ended before",
               {"train": {"a": "t.en", "b": "t.de.gz"}})  # fmt: skip
    yield Case("parallel: one missing", {"t.en": text(left)}, None, None, "task.data.train", "there is no file t.de", data)

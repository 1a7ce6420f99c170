"""Good data files, changed at random: what comes of each is told beforehand by an oracle that shares no code with the readers."""

import io
import random
import re

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
from data_case import FORMATS, ROWS, examples
from data_oracle import READERS, Refused, examples_in, spread_records, unpacked
from table_cases import WRITERS, A, B

from llmft.errors import DataError

SEED = 20
TOKENS = [
    *(b'"', b",", b"\n", b"\r", b"\r\n", b"\t", b"\0", b"\xef\xbb\xbf", b"\\", b"{", b"}", b"[", b"]", b":", b"0", b"-", b"1.5"),
    *(b"null", b"true", b"NaN", b"\xff", b"\xc3", b'\\u0000', b"\\ud800", b" ", b'""', b'"a":', b";", b"e9"),
]  # fmt: skip
SIZES = [pytest.param(0, 250, id="some"), pytest.param(250, 4000, id="many", marks=pytest.mark.torture)]


def mutant(data: bytes, draw: random.Random) -> bytes:
    """Change a few places."""
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        at, size = draw.randrange(len(data) + 1), draw.randrange(1, 6)
        lines = data.splitlines(keepends=True) or [b""]
        match draw.randrange(8):
            case 0 | 1:
                data = data[:at] + draw.choice(TOKENS) + data[at:]
            case 2:
                data = data[:at] + data[at + size :]
            case 3 if at < len(data):
                data = data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
            case 4:
                data = data[:at] + draw.randbytes(size) + data[at:]
            case 5:
                draw.shuffle(lines)
                data = b"".join(lines)
            case 6:
                data = b"".join([*lines, draw.choice(lines)])
            case 7 if draw.random() < 0.3:
                data = data[:at]
    return data


def expected(name: str, data: bytes) -> list[list[tuple[tuple[str, ...], int]] | Refused]:
    """What may come of a file: mostly one thing. Objects over several lines may be read, and need not be."""
    ending = name.removesuffix(".gz").removeprefix("train")
    try:
        data = unpacked(data) if name.endswith(".gz") else data
    except Refused as refused:
        return [refused]
    text = data.removeprefix(b"\xef\xbb\xbf")
    first = 1 + text[: len(text) - len(text.lstrip(b" \t\r\n"))].count(b"\n")
    found = [reached(READERS[ending], data)]
    if ending == ".jsonl" and isinstance(found[0], Refused) and found[0].lines == range(first, first + 1):
        found.append(reached(spread_records, data))  # the first line may have seemed to go on in the second
    return found


def reached(reader, data: bytes) -> list[tuple[tuple[str, ...], int]] | Refused:
    try:
        return examples_in(reader(data))
    except Refused as refused:
        return refused


def outcome(settings: dict) -> list[tuple[tuple[str, ...], str]] | DataError:
    try:
        return examples(settings)
    except DataError as error:
        return error


def fits(name: str, found, wanted, lines: int) -> bool:
    """Whether what came of a file is what was to come of it."""
    if isinstance(wanted, Refused) or isinstance(found, DataError):
        if not (isinstance(wanted, Refused) and isinstance(found, DataError)):
            return False
        place = re.match(rf"{re.escape(name)}:(\d+): ", str(found))
        if place is None:
            return wanted.lines is None and str(found).startswith(f"{name}: no rows for train")
        return int(place[1]) in (wanted.lines or range(1, lines + 2))
    places = [f"{name}:{line}" if line else place for (_, line), (_, place) in zip(wanted, found, strict=False)]
    return [(row, place) for (row, _), place in zip(wanted, places, strict=False)] == found


@pytest.mark.parametrize(("first", "count"), SIZES)
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_changed_texts(tmp_path, monkeypatch, form, first, count):
    monkeypatch.chdir(tmp_path)
    print(f"seed {SEED}, mutants {first} to {first + count}")
    good = form.packed(form.joined(form.lines()))
    told = {"accepted": 0, "refused": 0}
    for number in range(first, first + count):
        draw = random.Random(f"{SEED} {form.name} {number}")
        # what is changed before it is packed reaches the reader of the format; what is changed after it, seldom
        inner = form.zipped and draw.random() < 0.5
        data = form.packed(mutant(form.joined(form.lines()), draw)) if inner else mutant(good, draw)
        (tmp_path / form.name).write_bytes(data)
        found, wanted = outcome({"train": [form.name], "holdout": 0.0}), expected(form.name, data)
        told["refused" if isinstance(found, DataError) else "accepted"] += 1
        lines = 10**6 if form.zipped else data.count(b"\n") + 1
        assert any(fits(form.name, found, each, lines) for each in wanted), (
            f"mutant {number}: {data!r}\nfound {found!r}\nexpected {[getattr(each, 'lines', each) for each in wanted]!r}"
        )
    assert min(told.values()) > count // 20, told


def rows_of(name: str, data: bytes) -> list[dict]:
    """The rows of a table that pyarrow reads in another way than llmft: whole."""
    if name == "t.parquet":
        return pyarrow.parquet.read_table(io.BytesIO(data)).to_pylist()
    if name == "t.feather":
        return pyarrow.ipc.open_file(data).read_all().to_pylist()
    return pyarrow.ipc.open_stream(data).read_all().to_pylist()


@pytest.mark.parametrize(("first", "count"), SIZES)
@pytest.mark.parametrize("name", WRITERS)
def test_changed_tables(tmp_path, monkeypatch, name, first, count):
    """What is accepted was valid to the last byte: pyarrow reads what is not, too, and then the process ends."""
    monkeypatch.chdir(tmp_path)
    print(f"seed {SEED}, mutants {first} to {first + count}")
    good = WRITERS[name](pyarrow.table({"a": A, "b": B, "c": [["x", "y"], [], None] * 2, "d": [{"k": 1.5}] * 6}))
    told = {"accepted": 0, "refused": 0}
    for number in range(first, first + count):
        draw = random.Random(f"{SEED} {name} {number}")
        data = bytearray(good)
        for _ in range(draw.choice([1, 1, 2, 8])):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        data = data[: draw.randrange(len(data))] if number % 9 == 0 else data
        (tmp_path / name).write_bytes(data)
        found = outcome({"train": [name], "holdout": 0.0})
        told["refused" if isinstance(found, DataError) else "accepted"] += 1
        if isinstance(found, DataError):
            assert str(found).startswith(f"{name}:"), found
            continue
        table = rows_of(name, bytes(data))
        wanted = examples_in((fields, number) for number, fields in enumerate(table, 1))
        assert found == [(row, f"{name}:row {number}") for row, number in wanted], f"mutant {number}"
    assert min(told.values()) > count // 50, told


@pytest.mark.parametrize(("first", "count"), SIZES)
def test_changed_parallel_texts(tmp_path, monkeypatch, first, count):
    monkeypatch.chdir(tmp_path)
    print(f"seed {SEED}, mutants {first} to {first + count}")
    good = [b"".join(row[column].encode() + b"\n" for row in ROWS) for column in (0, 1)]
    accepted = 0
    for number in range(first, first + count):
        draw = random.Random(f"{SEED} parallel {number}")
        files = [mutant(data, draw) if draw.random() < 0.5 else data for data in good]
        for name, data in zip(("t.en", "t.de"), files, strict=True):
            (tmp_path / name).write_bytes(data)
        found = outcome({"train": {"a": "t.en", "b": "t.de"}, "holdout": 0.0})
        accepted += not isinstance(found, DataError)
        halves = [data.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n") for data in files]
        try:
            lines = [[line.decode().removesuffix("\r") for line in half] for half in halves]
            together = [pair for pair in zip(*lines, strict=True) if any(each.strip() for each in pair)]
            wanted = together if all(each.strip() and "\0" not in each for pair in together for each in pair) else None
        except ValueError:
            wanted = None
        if b"" in files or any(line.strip(b"\r\n \t") == b"" and b"\0" in line for half in halves for line in half):
            continue
        if wanted:
            assert not isinstance(found, DataError), f"mutant {number}: {files!r}: {found}"
            assert [row for row, _ in found] == wanted, f"mutant {number}"
        else:
            assert isinstance(found, DataError), f"mutant {number}: {files!r}"
            assert str(found).startswith(("t.en", "t.de")), found
    assert accepted > count // 20

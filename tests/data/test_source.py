"""Readers: what they accept without changing it, and what they refuse, with the exact place."""

import gzip
import json
import tracemalloc
from datetime import date

import pyarrow
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.config.schema import Data, TextBy
from llmft.data.row import BadRow
from llmft.data.source import Layout, kind_of, layout_of, read, scan
from llmft.errors import DataError

BIG = 2**63 + 1
DEEP = b'{"a":' * 65 + b"1" + b"}" * 65
VERY_DEEP = b'{"a":' * 5000 + b"1" + b"}" * 5000

# file name, content, where, part of the message
FAULTS = [
    ("a.jsonl", b'{"a": 1}\n{"a": 2\n', "2", "not JSON at column 9"),
    ("b.jsonl", b'{"a": 1}\n\n{"a": "x', "3", "may have been cut off"),
    ("c.jsonl", b'{"a": NaN}\n', "1", "NaN is not a JSON number"),
    ("d.jsonl", b'{"a": -Infinity}\n', "1", "-Infinity is not a JSON number"),
    ("e.jsonl", b'{"a": 1e999}\n', "1", "1e999 is too large"),
    ("f.jsonl", b'{"a": 1}\r\n{"a": 1, "b": 2, "a": 3}\r\n', "2", "key 'a' stands twice"),
    ("g.jsonl", b'{"a": {"b": 1, "b": 1}}\n', "1", "key 'b' stands twice"),
    ("h.jsonl", b'{"a": "x\\u0000y"}\n', "1", "NUL character in 'x\\x00y'"),
    ("i.jsonl", b'{"a": 1}\n{"a": "x\0y"}\n', "2", "NUL character at byte offset 17"),
    ("j.jsonl", b'{"a": "\\ud83d"}\n', "1", "half of a surrogate pair"),
    ("k.jsonl", b'{"\\udc00": 1}\n', "1", "half of a surrogate pair"),
    ("l.jsonl", b'{"a": 1}\n{"a": "caf\xe9"}\n', "2", "byte 0xe9 at byte offset 19 of the file is not UTF-8"),
    ("l2.jsonl", b'\xef\xbb\xbf{"a": "\xff"}\n', "1", "byte 0xff at byte offset 10 "),
    ("m.jsonl", b"\xed\xa0\x80\n", "1", "byte 0xed at byte offset 0"),
    ("n.jsonl", '{"a": 1}'.encode("utf-16"), "1", "UTF-16 text; convert it: iconv -f UTF-16 -t UTF-8"),
    ("n2.jsonl", '{"a": 1}'.encode("utf-32"), "1", "UTF-32"),
    ("o.jsonl", b"[1, 2]\n", "1", "found [1, 2]; expected a JSON object"),
    ("p.jsonl", b'"text"\n', "1", "found 'text'; expected a JSON object"),
    ("q.jsonl", b'{"a": 1} {"a": 2}\n', "1", "more text after the value, at column 10"),
    ("r.jsonl", DEEP, "1", "nested deeper than 64 levels"),
    ("s.jsonl", b'{"a": 1}\n' + VERY_DEEP, "2", "nested deeper than 64 levels"),
    ("t.jsonl", b'{"a": ' + b"9" * 5000 + b"}\n", "1", "4300 digits"),
    ("u.jsonl", b"{'a': 1}\n", "1", "not JSON at column 2"),
    ("v.jsonl", b'{"a": "tab\there"}\n', "1", "not JSON at column 11"),
    ("w.jsonl", gzip.compress(b'{"a": 1}\n'), "1", "the file is gzip; give its name the ending .gz"),
    ("y.jsonl.gz", b'{"a": 1}\n', "1", "Not a gzipped file"),
    ("z.jsonl", b"\xc2\xa0\n", "1", "not JSON at column 1"),
    ("A.jsonl", b'{"a": 1,\n{"b": 2}\n', "1", "not JSON at column"),
    ("B.jsonl", b'{"a": 1\n{"b": 2}\n', "1", "expected one JSON object a line"),
    ("C.jsonl", b'\n{"a": 1,\n', "2", "expected one JSON object a line"),
    ("D.jsonl", b'{"a":\n{"b": 2}\n{"c": 3}\n', "3", "if the file has one object a line, repair line 1"),
    ("E.jsonl", b'{\n "a": 1\n}\n{\n "a": 2\n', "6", "expected objects one after the other. The file may have been cut off"),
    ("F.jsonl", b'{\n "a": 1\n}\n\n{\n "a": NaN\n}\n', "5", "NaN is not a JSON number"),
    ("G.jsonl", b'{\n "a": "\xff"\n}\n', "2", "byte 0xff at byte offset 9"),
    ("H.jsonl", b'{\n "a": 1\n}\n7\n', "4", "found 7; expected a JSON object"),
    ("I.jsonl", b'"a"\n{\n "a": 1\n}\n', "1", "found 'a'; expected a JSON object"),
    ("a.json", b'[{"a": 1},\n {"a": 2}\n', "3", "expected , or ]"),
    ("b.json", b'[\n{"a": 1},\n{"a": 1, "a": 2}]', "3", "key 'a' stands twice"),
    ("c.json", b'[\n{"a": 1},\n\n  7]', "4", "found 7; expected a JSON object"),
    ("d.json", b'[{"a": 1},\n]', "2", "not JSON at column 1"),
    ("e.json", b'[{"a": 1}]\nx', "2", "more text after the list"),
    ("f.json", b'{"v": 1,\n "data": [{"a": 1}], "rows": [{"a": 2}]}', "1", "lists of rows under data, rows; expected one"),
    ("g.json", b'{"a": 1}\n{"a": \n', "3", "The file may have been cut off"),
    ("h.json", b'{"a": 1}\n\n{"a": NaN}', "3", "NaN is not a JSON number"),
    ("i.json", b'[{"a": "\n\xff"}]', "2", "byte 0xff at byte offset 9"),
    ("j.json", b'{"data": [{"a": Infinity}]}', "1", "Infinity is not a JSON number"),
    ("k.json", b'{"data": [{"a": 1}, {"a": "\\u0000"}]}', "1", "NUL character"),
    ("a.csv", b"a,b\n1,2\n3\n", "3", "1 cells; expected 2: a, b"),
    ("b.csv", b"a,b\n1,2,3\n", "2", "3 cells; expected 2: a, b"),
    ("c.csv", b'a,b\n"x\ny",1\n"never closed,2\n3,4\n', "4", "a quoted cell is never closed"),
    ("d.csv", b'a,b\n"x" y,1\n', "2", "broken quoting"),
    ("e.csv", b"a,a\n1,2\n", "1", "two columns are named 'a'"),
    ("f.csv", b"a,,c\n1,2,3\n", "1", "column 2 has no name"),
    ("g.csv", b"", "1", "the file is empty"),
    ("h.csv", b'a,b\n"x\ny\nz",1\n5,\xff\n', "5", "byte 0xff at byte offset 16"),
    ("i.csv", b"a,b\n1,2\n3", "3", "may have been cut off"),
    ("j.csv", b"a,b\r1,2\r", "1", "broken quoting or line end"),
    ("k.csv", b"a,\xe9\n1,2\n", "1", "byte 0xe9 at byte offset 2"),
    ("l.csv", b"a,b\n\n\n1,\0\n", "4", "NUL character at byte offset 8"),
    (
        "n.csv",
        b"a;b\n1;2\n",
        "1",
        "one column, named 'a;b'; expected names apart by commas, and found semicolons. Write it with",
    ),
    ("o.csv", b"a\tb\n1\t2\n", "1", "expected names apart by commas, and found tabs. Name the file .tsv."),
    ("p.csv", b"a,b\n1,2\na,b\n3,4\n", "3", "the columns' names stand here again, as where files were joined"),
    ("q.csv", b"version https://git-lfs.github.com/spec/v1\nsize 9\n", "1", "a Git LFS pointer and not the data"),
    ("e.tsv", b"a,b\n1,2\n", "1", "one column, named 'a,b'; expected names apart by tabs, and found commas."),
    ("m.csv", b"PK\x03\x04whatever\n", "1", "a zip archive; unpack it"),
    ("a.tsv", b"a\tb\n1\n", "2", "1 cells; expected 2"),
    ("b.tsv", b"a\tb\n1\t2\t3\n", "2", "3 cells; expected 2"),
    ("c.tsv", b"a\t\n", "1", "column 2 has no name"),
    ("d.tsv", b"\n\n", "1", "the file is empty"),
    ("a.txt", b"one\ntw\xf6\n", "2", "byte 0xf6 at byte offset 6"),
    ("b.txt", b"one\n\n\0\n", "3", "NUL character at byte offset 5"),
    ("c.txt", b"PAR1....PAR1", "1", "parquet; give its name the ending .parquet"),
]


def test_fault_names_are_distinct():
    assert len({name for name, *_ in FAULTS}) == len(FAULTS) >= 30


@pytest.mark.parametrize(("name", "content", "line", "part"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_fault_is_refused_with_its_place(tmp_path, name, content, line, part):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read(path))
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert part in str(caught.value)


def test_cut_gzip(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n' * 9)[:-12])
    with pytest.raises(
        DataError, match=r"a\.jsonl\.gz:\d+: cannot be read: Compressed file ended before.*Fetch the file again"
    ):
        list(read(path))


def test_whole_message(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1\n")
    with pytest.raises(DataError) as caught:
        list(read(path))
    assert str(caught.value) == (
        f"{path}:2: 1 cells; expected 2: a, b. Fix the row, or raise task.data.max_bad_rows=0 to leave it out."
    )


ACCEPTED = [
    ("a.jsonl", b'\xef\xbb\xbf{"a": "001"}\r\n\r\n{"a": %d}' % BIG, [{"a": "001"}, {"a": BIG}], [1, 3]),
    ("b.ndjson", b'{"a": null, "b": [1, {"c": true}]}\n', [{"a": None, "b": [1, {"c": True}]}], [1]),
    ("c.jsonl", b'{"a": "\\ud83d\\ude00", "b": 1.5}\n', [{"a": "\U0001f600", "b": 1.5}], [1]),
    ("d.jsonl", '{"a": "x\u2028y\u0085z"}\n'.encode(), [{"a": "x\u2028y\u0085z"}], [1]),
    ("e.jsonl", b"", [], []),
    ("f.jsonl.gz", gzip.compress(b'{"a": "NA"}\n'), [{"a": "NA"}], [1]),
    ("g.jsonl", b'\n{\n "a": 1\n}\n{"a": 2}{"a": 3}\n{"a":\n[4]}', [{"a": 1}, {"a": 2}, {"a": 3}, {"a": [4]}], [2, 5, 5, 6]),
    ("h.jsonl", b'{"a": 1,\r\n\r\n "b": {}}', [{"a": 1, "b": {}}], [1]),
    ("i.jsonl", b'{"a": 1\n}\n{"a": 2\n}\n', [{"a": 1}, {"a": 2}], [1, 3]),
    ("j.jsonl", b'[\n{"a": 1},\n{"a": 2}\n]', [{"a": 1}, {"a": 2}], [2, 3]),
    ("k.jsonl", b'{\n"data": [{"a": 1}]\n}', [{"data": [{"a": 1}]}], [1]),
    ("l.jsonl.gz", gzip.compress(b'{\n"a": 1\n}'), [{"a": 1}], [1]),
    ("a.json", b'[\n  {"a": "NA"},\n\n  {"a": [\n1]}, {"a": -0}\n]\n', [{"a": "NA"}, {"a": [1]}, {"a": 0}], [2, 4, 5]),
    ("b.json", b'{"a": 1}\n{\n "a": 2\n}\n{"a": 3}', [{"a": 1}, {"a": 2}, {"a": 3}], [1, 2, 5]),
    ("c.json", b'{\n "a": "one"\n}\n', [{"a": "one"}], [1]),
    ("d.json", b"[]", [], []),
    ("e.json", b" \n", [], []),
    ("f.json", b"[\xc3\xa9]".replace(b"\xc3\xa9", b'{"a": "\xc3\xa9"}'), [{"a": "é"}], [1]),
    ("a.csv", b'a,b\r\nNA,001\r\n"x, ""y""","l1\r\nl2"\r\n\r\nnull,\r\n',
     [{"a": "NA", "b": "001"}, {"a": 'x, "y"', "b": "l1\r\nl2"}, {"a": "null", "b": ""}], [2, 3, 6]),
    ("b.csv", b"\xef\xbb\xbfa\n 1.10 \nTrue", [{"a": " 1.10 "}, {"a": "True"}], [2, 3]),
    ("c.csv", b"\r\n\na,b\n1,2\n", [{"a": "1", "b": "2"}], [4]),
    ("d.csv", b"a\n" + b"x" * 200_000 + b"\n", [{"a": "x" * 200_000}], [2]),
    ("e.csv.gz", gzip.compress(b"a\n1\n"), [{"a": "1"}], [2]),
    ("f.csv", b"a,b\n1,2", [{"a": "1", "b": "2"}], [2]),
    ("a.tsv", b'a\tb\r\n"lone\t don\'t "\r\n\r\n\\N\t\r\n', [{"a": '"lone', "b": " don't \""}, {"a": "\\N", "b": ""}], [2, 4]),
    ("a.txt", b" one \n\n  \n1\ttwo\r\nlast", [{"text": " one "}, {"text": "1\ttwo"}, {"text": "last"}], [1, 4, 5]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "rows", "numbers"), ACCEPTED, ids=[case[0] for case in ACCEPTED])
def test_values_survive(tmp_path, name, content, rows, numbers):
    path = tmp_path / name
    path.write_bytes(content)
    found = list(read(path))
    assert [row.fields for row in found] == rows
    assert [row.where for row in found] == [f"{path}:{number}" for number in numbers]


NAMES = Layout(columns=("id", "score", "text"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", b'1_1\t-0.9\tsay "no\r\n\r\n1_2\t0\tdon\'t, "\r\n'),
        ("a.txt", b'1_1\t-0.9\tsay "no\n\n1_2\t0\tdon\'t, "'),
        ("a.csv", b'1_1,-0.9,"say ""no"\r\n\r\n1_2,0,"don\'t, """\r\n'),
    ],
)
def test_tables_without_names(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    assert [(row.where, row.fields) for row in read(path, NAMES)] == [
        (f"{path}:1", {"id": "1_1", "score": "-0.9", "text": 'say "no'}),
        (f"{path}:3", {"id": "1_2", "score": "0", "text": "don't, \""}),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "a\tb\n", "1: 2 cells; task.data.columns has 3 names: id, score, text. Name every column of the file."),
        ("b.csv", "a,b,c,d\n", "1: 4 cells; task.data.columns has 3 names: id, score, text. Name every column of the file."),
        ("c.txt", "a text\n", "1: 1 cells; task.data.columns has 3 names: id, score, text. Name every column of the file."),
        ("d.tsv", "id\tscore\ttext\n", "1: the file has a line with the columns' names. Remove task.data.columns."),
        ("e.csv", "id,score,text\n", "1: the file has a line with the columns' names. Remove task.data.columns."),
        ("f.csv", "\n", "1: the file is empty; expected rows. Name another file."),
        ("g.tsv", "", "1: the file is empty; expected rows. Name another file."),
        ("h.tsv", "a\tb\tc\na\tb\n", "2: 2 cells; expected 3: id, score, text. Fix the row, or raise task.data.max_bad_rows=0"
         " to leave it out."),
    ],
)  # fmt: skip
def test_other_columns_than_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        list(read(path, NAMES))
    assert str(caught.value) == f"{path}:{message}"


def test_bad_bytes_in_the_first_row_of_a_table_without_names(tmp_path):
    for name, content in (("a.tsv", b"\xff\tb\tc\n1\t2\t3\n"), ("a.csv", b"\xff,b,c\n1,2,3\n")):
        (tmp_path / name).write_bytes(content)
        bad = []
        assert [row.fields["id"] for row in read(tmp_path / name, NAMES, 1, bad)] == ["1"]
        assert [row.where for row in bad] == [f"{tmp_path / name}:1"]


@pytest.mark.parametrize(("columns", "place"), [(["a", "b", "a"], 3), (["a", " "], 2)])
def test_columns_need_names_of_their_own(columns, place):
    with pytest.raises(DataError, match=rf"^task\.data\.columns=\[{','.join(columns)}\]: column {place} is named "):
        layout_of(Data(columns=columns))


TEXT = b"\xef\xbb\xbf\r\n  First line \r\nsecond\r\n \t\r\n\r\nThird, \xe2\x80\xa8same\r\n\r\n"


@pytest.mark.parametrize(
    ("text_by", "rows"),
    [
        (TextBy.line, [(2, "  First line "), (3, "second"), (6, "Third, \u2028same")]),
        (TextBy.paragraph, [(2, "  First line \nsecond"), (6, "Third, \u2028same")]),
        (TextBy.document, [(1, "\n  First line \nsecond\n \t\n\nThird, \u2028same\n\n")]),
    ],
)
def test_text_by(tmp_path, text_by, rows):
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT)
    found = [(row.where, row.fields) for row in read(path, Layout(text_by=text_by))]
    assert found == [(f"{path}:{line}", {"text": text}) for line, text in rows]
    for blank in (b"", b" \n\n"):
        path.write_bytes(blank)
        assert list(read(path, Layout(text_by=text_by))) == []


def test_ends_of_text_stay(tmp_path):
    path = tmp_path / "a.txt"
    for content in ("one\ntwo", "one\n\ntwo\n", "\n\none"):
        path.write_text(content)
        assert [row.fields["text"] for row in read(path, Layout(text_by=TextBy.document))] == [content]
    path.write_text("one\ntwo\n\nthree")
    assert [row.fields["text"] for row in read(path, Layout(text_by=TextBy.paragraph))] == ["one\ntwo", "three"]


def test_bad_bytes_spoil_their_paragraph_only(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ntw\xff\n\nthree\n\n\xfe\n")
    bad = []
    assert [row.fields["text"] for row in read(path, Layout(text_by=TextBy.paragraph), 2, bad)] == ["three"]
    assert [row.where for row in bad] == [f"{path}:2", f"{path}:6"]
    with pytest.raises(DataError, match=r"a\.txt:2: byte 0xff at byte offset 6"):
        list(read(path, Layout(text_by=TextBy.document)))


def test_list_within_an_object(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"version": "1.1", "tags": ["x"], "data": [{"a": 1}, {"a": 2}]}')
    assert [(row.fields, row.where) for row in read(path)] == [({"a": 1}, f"{path}:data[0]"), ({"a": 2}, f"{path}:data[1]")]


def test_rows_under(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"x": {"y": [{"a": 1}]}, "x.z": [{"a": 2}], "s": 3, "more": [{"a": 4}]}')
    assert [row.fields for row in read(path, Layout("x.y"))] == [{"a": 1}]
    assert [row.fields for row in read(path, Layout("x.z"))] == [{"a": 2}]
    with pytest.raises(DataError, match=r"a\.json:1: no key 'nope'; the object has x, x\.z, s, more\."):
        list(read(path, Layout("nope")))
    with pytest.raises(DataError, match=r"a\.json:1: s is 3; expected a list of objects"):
        list(read(path, Layout("s")))
    path.write_text('[{"a": 1}]')
    with pytest.raises(DataError, match=r"a\.json:1: the file is a sequence of rows.*Remove task\.data\.rows_under"):
        list(read(path, Layout("data")))


def test_bad_rows_are_counted_and_the_next_one_stops(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": NaN}\n\xff\n{"a": 2}\n')
    bad = []
    assert [row.fields for row in read(path, max_bad_rows=2, bad_rows=bad)] == [{"a": 1}, {"a": 2}]
    assert bad == [
        BadRow(f"{path}:2", "NaN is not a JSON number; expected strict JSON."),
        BadRow(f"{path}:3", "byte 0xff at byte offset 20 of the file is not UTF-8; expected UTF-8 text."),
    ]
    with pytest.raises(DataError, match=r"a\.jsonl:3: .*max_bad_rows=1 "):
        list(read(path, max_bad_rows=1))


def test_bad_bytes_within_a_quoted_cell_spoil_that_row_only(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'a,b\n"x\n\xff\ny",1\n3,4\n')
    bad = []
    assert [(row.fields, row.where) for row in read(path, max_bad_rows=1, bad_rows=bad)] == [
        ({"a": "3", "b": "4"}, f"{path}:5")
    ]
    assert [row.where for row in bad] == [f"{path}:3"]


def test_broken_quoting_cannot_be_left_out(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,b\n"x" y,1\n3,4\n')
    with pytest.raises(DataError, match="Repair the file"):
        list(read(path, max_bad_rows=100))


TABLE = pyarrow.table(
    {"a": ["NA", None], "n": pyarrow.array([BIG, 1], pyarrow.uint64()), "l": [["x"], []], "s": [{"k": 1}] * 2}
)
ROWS = [{"a": "NA", "n": BIG, "l": ["x"], "s": {"k": 1}}, {"a": None, "n": 1, "l": [], "s": {"k": 1}}]


def write_stream(table, path):
    with pyarrow.ipc.new_stream(path, table.schema) as out:
        out.write_table(table)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.parquet", pyarrow.parquet.write_table),
        ("a.feather", pyarrow.feather.write_feather),
        ("a.arrow", write_stream),
    ],
)
def test_tables(tmp_path, name, write):
    path = tmp_path / name
    write(TABLE, str(path))
    assert [(row.fields, row.where) for row in read(path)] == [(ROWS[0], f"{path}:row 1"), (ROWS[1], f"{path}:row 2")]


def test_table_with_nul(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": ["x", "y\0"], "d": [date(2020, 1, 1)] * 2}), path)
    with pytest.raises(DataError, match=r"a\.parquet:row 2: NUL character"):
        list(read(path))


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather"])
@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"PAR1PAR1"])
def test_damaged_tables(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: not a readable .*Fetch or write the file again"):
        list(read(path))


def test_unknown_and_missing(tmp_path):
    with pytest.raises(DataError, match=r"unknown ending '\.docx'; expected one of \.jsonl"):
        list(read(tmp_path / "a.docx"))
    with pytest.raises(DataError, match=r"a\.csv: cannot be read: No such file"):
        list(read(tmp_path / "a.csv"))


def test_kind_of(tmp_path):
    kinds = {"a.b.CSV": ".csv", "a.jsonl.gz": ".jsonl", "a.parquet.gz": None, "a.gz": None, "a": None, ".csv": None}
    assert {name: kind_of(tmp_path / name) for name in kinds} == kinds


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abé", max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(st.lists(st.dictionaries(st.text("abé", max_size=3), JSON, max_size=3), min_size=2, max_size=4), st.booleans())
def test_json_round_trip(tmp_path_factory, rows, escaped):
    folder = tmp_path_factory.mktemp("round")
    (folder / "a.jsonl").write_text("".join(json.dumps(row, ensure_ascii=escaped) + "\n" for row in rows), newline="")
    (folder / "a.json").write_text(json.dumps(rows, ensure_ascii=escaped, indent=1), newline="")
    for name in ("a.jsonl", "a.json"):
        assert [row.fields for row in read(folder / name)] == rows


def test_memory_stays_flat(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"a": "x" * 1000}) + "\n")
    path.write_text(path.read_text() * 20_000)
    tracemalloc.start()
    assert sum(1 for _ in scan(path)) == 20_000
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 1_000_000 < path.stat().st_size

"""Readers: what they refuse, with the exact place, and how many such rows may be left out."""

import gzip

import pytest

from llmft.data.row import BadRow
from llmft.data.source import read
from llmft.errors import DataError

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

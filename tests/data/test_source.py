"""Readers: what they accept without changing it, and what they refuse, with the exact place."""

import gzip
import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.config.schema import Data
from llmft.data.source import Layout, kind_of, layout_of, read, scan
from llmft.errors import DataError

BIG = 2**63 + 1
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

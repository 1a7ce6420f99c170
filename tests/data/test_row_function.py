"""The row function: one row, several or none for each record, and what is said where it fails."""

import importlib
import os

import pytest

from llmft.data.row import Row
from llmft.data.row_function import apply_row, source_of
from llmft.errors import ConfigError, DataError

ROWS = [Row({"a": "x"}, "f:1"), Row({"a": "y"}, "f:2")]


def test_without_a_function():
    assert list(apply_row(ROWS, None)) == ROWS


def test_one_row_or_none():
    def keep_x(fields):
        fields["b"] = 1
        return fields if fields["a"] == "x" else None

    assert list(apply_row(ROWS, keep_x)) == [Row({"a": "x", "b": 1}, "f:1")]
    assert ROWS[0].fields == {"a": "x"}  # the record stays as it is in the file


def test_several_rows():
    def letters(fields):
        return [{"id": name, "a": fields["a"] + str(name)} for name in ("p", 3, "", None)] if fields["a"] == "x" else []

    assert [(row.where, row.fields["a"]) for row in apply_row(ROWS, letters)] == [
        ("f:1, id p", "xp"), ("f:1, id 3", "x3"), ("f:1, #3", "x"), ("f:1, #4", "xNone"),
    ]  # fmt: skip
    assert list(apply_row(ROWS, lambda fields: [fields])) == ROWS


def test_failing():
    def picky(fields):
        return {"a": fields["b"]}

    with pytest.raises(
        DataError, match=r"^f:1: task\.row raised KeyError: 'b', at .*test_row_function\.py:\d+\. Fix the function"
    ):
        list(apply_row(ROWS, picky))


def test_refusing():
    def refuse(fields):
        raise DataError("no 'b'. Fix the data.")

    with pytest.raises(DataError) as caught:
        list(apply_row(ROWS, refuse))
    assert str(caught.value) == "f:1: no 'b'. Fix the data."


@pytest.mark.parametrize(
    ("made", "shown"), [("x", "'x'"), ([{"a": 1}, "x"], r"\[\{'a': 1\}, 'x'\]"), (0, "0"), (({},), r"\(\{\},\)")]
)
def test_returning_something_else(made, shown):
    with pytest.raises(DataError, match=rf"^f:1: task\.row returned {shown}; expected a dict, a list of dicts, or None\."):
        list(apply_row(ROWS, lambda fields: made))


def test_a_helper_beside_the_row_function_counts_too(tmp_path, monkeypatch):
    (tmp_path / "rows_beside.py").write_text(
        "def tidy(text): return text\ndef row(fields): return tidy(fields)\ndef other(fields): return fields\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    rows_beside = importlib.import_module("rows_beside")
    assert "def tidy" in source_of(rows_beside.row)
    assert source_of(rows_beside.row) != source_of(rows_beside.other)
    with pytest.raises(ConfigError, match=r"no Python source\. Name a function written in Python"):
        source_of(os.system)

"""A column keeps its kind of value: at any row, whatever comes between, in the columns that are read."""

import pytest

from llmft.data.kinds import Kinds, kind_of
from llmft.data.row import Row
from llmft.data.strict_json import WrittenFloat
from llmft.data.template import Template
from llmft.errors import DataError


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("x", "text"), ("001", "text"), ("", None), (None, None), ([], None), ([None, ""], None), (0, "a number"),
        (2.5, "a number"), (WrittenFloat(1), "a number"), (False, "a truth value"), (["a", "b"], "text"), ([1, [2.5]], "a number"),
        (["a", 1], "a number and text"), ({}, "an object"), ([{"k": 1}], "an object"), (b"x", "a bytes"),
    ],
)  # fmt: skip
def test_kind_of(value, kind):
    assert kind_of(value) == kind


def test_the_first_row_with_content_says_what_a_column_holds():
    kinds = Kinds(Template("{a} {b.c} {a}").places)
    for number, a in enumerate(["", None, "x", [], ["y", "z"], "1"] * 100, start=1):
        kinds.check(Row({"a": a, "b": {"c": number / 2}, "unread": number if number % 2 else "x"}, f"f:{number}"))
    with pytest.raises(DataError) as caught:
        kinds.check(Row({"a": 3.0, "b": {"c": 1}}, "f:601"))
    assert str(caught.value) == (
        "f:601: column 'a' is a number (3.0), but text in f:3; expected one kind of value in a column. Fix the data, or make "
        "them alike by task.row."
    )
    with pytest.raises(DataError, match=r"^f:602: column 'b\.c' is a truth value \(True\), but a number in f:1;"):
        kinds.check(Row({"a": "x", "b": {"c": True}}, "f:602"))
    with pytest.raises(DataError, match=r"^f:603: no column 'a'; the row has b\. Fix task\.source or the data\."):
        kinds.check(Row({"b": {"c": 1}}, "f:603"))

"""Rows that were read and cannot be used: counted with those that cannot be read, as far as the split allows any."""

import json

import pytest

from llmft.config.schema import Data, Formulation, LabelKind, Task
from llmft.data.dataset import open_splits
from llmft.errors import DataError
from llmft.tasks.label import find_labels

GOOD = {"a": "x", "t": "y"}


@pytest.fixture
def split(tmp_path):
    """The training split of a file with these rows; a row may be any text."""

    def make(rows, max_bad_rows=0, row=None):
        path = tmp_path / "f.jsonl"
        path.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in rows))
        return path, open_splits(Data(train=[str(path)], holdout=0.0, max_bad_rows=max_bad_rows), None, row)["train"]

    return make


FAULTS = [
    ({"a": "x"}, "no column 't'"),
    ({"t": "y"}, "no column 'a'"),
    ({"a": "x", "t": ""}, "the target is empty"),
    ({"a": None, "t": "y"}, "column 'a' is null"),
    ({"a": 3, "t": "y"}, "column 'a' is a number (3), but text in"),
    ({"a": "x", "t": [3]}, "column 't' is a number ([3]), but text in"),
    ({"a": {"b": 1}, "t": "y"}, "column 'a' is an object"),
]


@pytest.mark.parametrize("place", [2, 500])
@pytest.mark.parametrize(("bad", "found"), FAULTS, ids=[found for _, found in FAULTS])
def test_a_fault_is_found_at_any_row(formulate, split, bad, found, place):
    task = formulate(source="{a}", target="{t}")
    path, rows = split([GOOD] * (place - 1) + [bad] + [GOOD] * 3)
    examples = task.examples(rows)
    assert [next(examples).where for _ in range(place - 1)] == [f"{path}:{number}" for number in range(1, place)]
    with pytest.raises(DataError) as caught:
        next(examples)
    assert str(caught.value).startswith(f"{path}:{place}: {found}")


def test_they_are_counted_and_listed_with_the_unreadable_ones(formulate, split):
    task = formulate(source="{a}", target="{t}")
    path, rows = split([GOOD, {"a": "x"}, "broken", GOOD, {"a": 1, "t": "y"}, GOOD], max_bad_rows=3)
    for _ in range(2):  # each time anew
        assert [each.id for each in task.examples(rows)] == ["0", "2", "4"]  # of the rows that were read
        assert [bad.where for bad in rows.bad_rows] == [f"{path}:{number}" for number in (2, 3, 5)]
    assert [bad.reason.partition(";")[0] for bad in rows.bad_rows] == [
        "no column 't'",
        "not JSON at column 1: Expecting value",
        f"column 'a' is a number (1), but text in {path}:1",
    ]
    assert rows.left_out() == [
        f"3 train rows are left out (task.data.max_bad_rows=3), the first at {path}:2: no column 't'; the row has a. Fix task.target "
        "or the data."
    ]
    path, rows = split([{"a": "x"}, "broken", GOOD, {"t": "y"}], max_bad_rows=2)
    with pytest.raises(DataError) as caught:
        list(task.examples(rows))
    assert str(caught.value) == (
        f"{path}:4: no column 'a'; the row has t. Fix task.source or the data. 3 rows are bad; task.data.max_bad_rows=2 are allowed."
    )


def test_columns_that_nothing_reads_may_be_anything(formulate, split):
    _, rows = split([GOOD | {"u": 1}, GOOD, GOOD | {"u": "x", "v": [{}]}])
    assert len(list(formulate(source="{a}", target="{t}").examples(rows))) == 3


def picky(fields):
    return {**fields, "a": fields["a"].upper()}


def test_what_the_row_function_fails_on_is_counted_too(formulate, split):
    path, rows = split([GOOD, {"a": 1, "t": "y"}, GOOD], max_bad_rows=1, row=picky)
    assert [each.source for each in formulate(source="{a}", target="{t}").examples(rows)] == ["X", "X"]
    [bad] = rows.bad_rows
    assert bad.where == f"{path}:2"
    assert bad.reason.startswith("task.row raised AttributeError: 'int' object has no attribute 'upper', at ")


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        (
            {"formulation": Formulation.label, "source": "{a}", "target": "{t}"},
            [GOOD, {"a": "x", "t": "z"}, {"a": "x", "t": ""}],
        ),
        (
            {"formulation": Formulation.span, "source": "{a}", "context": "{c}", "target": "{t}"},
            [GOOD | {"c": "a y"}, GOOD | {"c": "no"}, GOOD | {"c": "y"}],
        ),
        ({"formulation": Formulation.language_model, "source": "{a}"}, [GOOD, {"a": None}, GOOD]),
        (
            {"messages": "m"},
            [
                {"m": [{"role": "user", "content": "q"}, {"role": role, "content": "a"}]}
                for role in ("assistant", "user", "model")
            ],
        ),
    ],
    ids=["label", "span", "language_model", "messages"],
)
def test_every_formulation_counts_them(formulate, split, settings, rows):
    _, source = split(rows, max_bad_rows=1)
    task = formulate(**settings)
    assert len(list(task.examples(source))) == 2
    assert len(source.bad_rows) == 1
    with pytest.raises(DataError, match=r"f\.jsonl:\d: "):
        list(task.examples(split(rows)[1]))


def test_labels_are_looked_for_in_the_rows_that_count(split):
    _, rows = split([{"a": "x", "t": "p"}, {"a": "x", "t": None}, {"a": "x", "t": "q"}], max_bad_rows=1)
    task = Task(formulation=Formulation.label, label_kind=LabelKind.single, source="{a}", target="{t}")
    assert find_labels(task, rows) == ["p", "q"]

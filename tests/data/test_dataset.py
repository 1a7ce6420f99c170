"""Splits: what names stand for, what is held out, and what makes two data sets the same."""

import hashlib
import json
from pathlib import Path

import pytest

from llmft.config.schema import Data, TextBy
from llmft.data.dataset import Bands, open_splits
from llmft.data.row import Row
from llmft.errors import ConfigError, DataError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, values):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(json.dumps({"a": value}) + "\n" for value in values))
    return str(path)


def values(source):
    return [row.fields["a"] for row in source]


def opened(**data):
    return open_splits(Data(**data), None)


def test_three_files(folder):
    for name in "abc":
        write(f"{name}.jsonl", [name, name + name])
    splits = opened(train=["a.jsonl"], validation=["b.jsonl"], test=["c.jsonl"])
    assert {split: values(source) for split, source in splits.items()} == {
        "train": ["a", "aa"],
        "validation": ["b", "bb"],
        "test": ["c", "cc"],
    }
    assert values(splits["train"]) == ["a", "aa"]  # a second pass reads the same
    assert splits["train"].description == "a.jsonl"
    content = (folder / "a.jsonl").read_bytes()
    assert splits["train"].files == [{"path": "a.jsonl", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}]


def test_several_files_in_the_order_given(folder):
    write("b.jsonl", [1, 2])
    (folder / "a.csv").write_text("a\nx\n")
    splits = opened(train=["b.jsonl", "a.csv"], validation=["a.csv"], test=["a.csv"])
    assert values(splits["train"]) == [1, 2, "x"]
    assert splits["train"].description == "b.jsonl, a.csv"


def test_held_out_by_content(folder):
    write("a.jsonl", range(1000))
    splits = opened(train=["a.jsonl"], holdout=0.1)
    found = {split: values(source) for split, source in splits.items()}
    assert sorted(value for part in found.values() for value in part) == list(range(1000))
    assert 70 <= len(found["validation"]) <= 130
    assert 70 <= len(found["test"]) <= 130
    assert found["train"] == sorted(found["train"])
    assert splits["train"].description == "a.jsonl without 10 % each for test and validation"
    assert splits["test"].description == "10 % of a.jsonl, held out by content"

    # the rule, computed by hand for one row
    place = int.from_bytes(hashlib.blake2b(b'{"a": 17}', digest_size=8).digest(), "big") / 2**64
    assert 17 in found["test" if place < 0.1 else "validation" if place < 0.2 else "train"]


def test_new_rows_move_no_old_ones_and_equal_rows_stay_together(folder):
    write("a.jsonl", range(300))
    before = {split: set(values(source)) for split, source in opened(train=["a.jsonl"], holdout=0.2).items()}
    write("a.jsonl", [*range(500), *range(300)])
    after = {split: values(source) for split, source in opened(train=["a.jsonl"], holdout=0.2).items()}
    for split, old in before.items():
        assert old == set(after[split]) & set(range(300))
        assert sum(value < 300 for value in after[split]) == 2 * len(old)


def test_naming_one_split_keeps_the_other(folder):
    write("a.jsonl", range(300))
    write("v.jsonl", ["v"])
    both = opened(train=["a.jsonl"], holdout=0.2)
    one = opened(train=["a.jsonl"], validation=["v.jsonl"], holdout=0.2)
    assert values(one["test"]) == values(both["test"])
    assert one["test"].content == both["test"].content != one["train"].content
    assert values(one["validation"]) == ["v"]
    assert values(one["train"]) == sorted(values(both["train"]) + values(both["validation"]))
    assert one["train"].description == "a.jsonl without 20 % each for test"


def test_key_order_does_not_move_a_row():
    bands = Bands(0.4, {"test", "validation"})
    for number in range(50):
        rows = [Row({"a": number, "b": "é"}, "x:1"), Row({"b": "é", "a": number}, "y:2")]
        assert bands.split_of(rows[0]) == bands.split_of(rows[1])


def test_no_holdout(folder):
    write("a.jsonl", range(10))
    assert list(opened(train=["a.jsonl"], holdout=0.0)) == ["train"]


@pytest.mark.parametrize("holdout", [-0.1, 0.5, 2.0])
def test_holdout_is_a_share(folder, holdout):
    write("a.jsonl", range(10))
    with pytest.raises(ConfigError, match=rf"^task\.data\.holdout={holdout}: expected a share"):
        opened(train=["a.jsonl"], holdout=holdout)


def test_held_out_of_too_few_rows(folder):
    write("a.jsonl", [1, 2])
    with pytest.raises(DataError) as caught:
        values(opened(train=["a.jsonl"], holdout=0.001)["test"])
    assert str(caught.value) == (
        "0.1 % of a.jsonl, held out by content: no rows for test; expected at least one. "
        "Name task.data.test, or give more rows or a larger task.data.holdout than 0.001."
    )


def test_empty_file(folder):
    write("a.jsonl", [])
    with pytest.raises(DataError, match=r"^a\.jsonl: no rows for train; expected at least one\."):
        values(opened(train=["a.jsonl"], holdout=0.0)["train"])


def test_limits_cut_after_holding_out(folder):
    write("a.jsonl", range(100))
    whole = opened(train=["a.jsonl"], holdout=0.2)
    some = opened(train=["a.jsonl"], holdout=0.2, max_train=5, max_validation=3)
    assert values(some["train"]) == values(whole["train"])[:5]
    assert values(some["validation"]) == values(whole["validation"])[:3]
    assert values(some["test"]) == values(whole["test"])
    assert some["train"].description.endswith(", first 5 rows")


def test_content_is_what_the_rows_are(folder):
    write("a.jsonl", range(100))
    write("b.jsonl", range(100))
    base = opened(train=["a.jsonl"])
    assert len({base[split].content for split in ("train", "validation", "test")}) == 3
    assert opened(train=["a.jsonl"])["train"].content == base["train"].content
    assert opened(train=["b.jsonl"])["train"].content == base["train"].content  # another name, the same rows
    assert opened(train=["a.jsonl"], max_bad_rows=3)["train"].content == base["train"].content
    others = [
        opened(train=["a.jsonl"], holdout=0.1),
        opened(train=["a.jsonl"], max_train=7),
        opened(train=["a.jsonl"], validation=["b.jsonl"]),
        opened(train=["a.jsonl", "b.jsonl"]),
    ]
    assert base["train"].content not in {other["train"].content for other in others}
    Path("a.jsonl").rename("a.txt")
    assert opened(train=["a.txt"])["train"].content != base["train"].content  # the same bytes, other rows


def test_bad_rows(folder):
    Path("a.jsonl").write_text('{"a": 1}\nx\n{"a": 2}\n')
    Path("b.jsonl").write_text('y\n{"a": 3}\n')
    source = opened(train=["a.jsonl", "b.jsonl"], holdout=0.0, max_bad_rows=2)["train"]
    assert source.bad_rows == []
    for _ in range(2):
        assert values(source) == [1, 2, 3]
        assert [row.where for row in source.bad_rows] == ["a.jsonl:2", "b.jsonl:1"]
    with pytest.raises(DataError, match=r"^b\.jsonl:1: "):
        values(opened(train=["a.jsonl", "b.jsonl"], holdout=0.0, max_bad_rows=1)["train"])


def test_rows_under_reaches_the_reader(folder):
    Path("a.json").write_text('{"x": [{"a": 1}], "y": [{"a": 2}]}')
    assert values(opened(train=["a.json"], rows_under="y", holdout=0.0)["train"]) == [2]


def test_columns_and_text_by_reach_the_reader(folder):
    Path("a.tsv").write_text("1\t2\n")
    Path("b.txt").write_text("1\t2\n")
    for name in ("a.tsv", "b.txt"):
        [row] = opened(train=[name], columns=["a", "b"], holdout=0.0)["train"]
        assert row.fields == {"a": "1", "b": "2"}
    Path("c.txt").write_text("one\ntwo\n\nthree\n")
    kinds = {text_by: opened(train=["c.txt"], text_by=text_by, holdout=0.0)["train"] for text_by in TextBy}
    assert [sum(1 for _ in source) for source in kinds.values()] == [3, 2, 1]
    assert len({source.content for source in kinds.values()}) == 3
    assert (
        opened(train=["a.tsv"], columns=["a", "b"])["train"].content
        != opened(train=["a.tsv"], columns=["b", "a"])["train"].content
    )


def parts(fields):
    return [{"a": f"{fields['a']}.{n}"} for n in range(3)] if fields["a"] != 7 else None


def other_parts(fields):
    return parts(fields)


def test_rows_made_from_one_record_stay_together(folder):
    write("a.jsonl", range(300))
    plain = opened(train=["a.jsonl"], holdout=0.2)
    made = open_splits(Data(train=["a.jsonl"], holdout=0.2), None, parts)
    for split, source in made.items():
        kept = [value for value in values(plain[split]) if value != 7]
        assert values(source) == [f"{value}.{n}" for value in kept for n in range(3)]


def test_limits_count_the_rows_that_are_made(folder):
    write("a.jsonl", range(300))
    data = Data(train=["a.jsonl"], test=["a.jsonl"], validation=["a.jsonl"], max_train=4, max_test=600)
    splits = open_splits(data, None, parts)
    assert values(splits["train"]) == ["0.0", "0.1", "0.2", "1.0"]
    assert [len(values(splits[split])) for split in ("test", "validation")] == [600, 897]
    [*_, last] = splits["train"]
    assert last.where == "a.jsonl:2, #1"


def test_a_limit_reads_no_further(folder):
    Path("a.jsonl").write_text('{"a": 1}\n{"a": 2}\nbroken\n')
    assert values(opened(train=["a.jsonl"], holdout=0.0, max_train=2)["train"]) == [1, 2]


def test_the_row_function_is_part_of_the_content(folder):
    write("a.jsonl", range(30))
    data = Data(train=["a.jsonl"], holdout=0.0)
    contents = [open_splits(data, None, row)["train"].content for row in (None, parts, other_parts)]
    assert len(set(contents)) == 3
    assert open_splits(data, None, parts)["train"].content == contents[1]
    source = open_splits(data, None, str.upper)["train"]
    with pytest.raises(ConfigError, match="no Python source"):
        source.content  # noqa: B018


def test_a_row_function_that_leaves_nothing(folder):
    write("a.jsonl", [7])
    with pytest.raises(DataError) as caught:
        list(open_splits(Data(train=["a.jsonl"], holdout=0.0), None, parts)["train"])
    assert str(caught.value) == (
        "a.jsonl: no rows for train; expected at least one. Name task.data.train, or give more rows, or let task.row keep some."
    )


def test_built_in_rows_go_through_the_row_function():
    rows = {"train": [Row({"a": 1}, "Lib:1")], "test": [Row({"a": 7}, "Lib:2"), Row({"a": 8}, "Lib:3")]}
    splits = open_splits(Data(builtin="demo"), lambda: rows, parts)
    assert [(row.where, row.fields["a"]) for row in splits["test"]] == [(f"Lib:3, #{n + 1}", f"8.{n}") for n in range(3)]

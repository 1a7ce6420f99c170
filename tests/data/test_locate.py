"""What a name stands for: a file, a folder of splits, a folder that `datasets` saved, a data set of the hub."""

import hashlib
import json
import sys
from pathlib import Path

import datasets
import pytest

from llmft.config.schema import Data
from llmft.data.dataset import open_splits
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


@pytest.mark.parametrize("name", ["validation", "valid", "dev", "val"])
def test_folder_of_split_files(folder, name):
    write("set/train.jsonl", range(100))
    write(f"set/{name}.jsonl", ["v"])
    write("set/train_1000.jsonl", ["no"])
    Path("set/LICENSE.txt").write_text("words")
    splits = opened(train=["set"])
    assert values(splits["validation"]) == ["v"]
    assert splits["train"].description == "set/train.jsonl without 5 % each for test"
    assert sorted(values(splits["train"]) + values(splits["test"])) == list(range(100))


def test_folder_of_shards(folder):
    write("set/data/train-00001-of-00002.jsonl", [2])
    write("set/data/train-00000-of-00002.jsonl", [1])
    write("set/data/test-00000-of-00001.jsonl", [3])
    splits = opened(train=["set"], holdout=0.0)
    assert {split: values(source) for split, source in splits.items()} == {"train": [1, 2], "test": [3]}


def test_ambiguous_folder(folder):
    write("set/dev.jsonl", [1])
    write("set/val.jsonl", [1])
    with pytest.raises(
        DataError, match=r"^task\.data\.train=set: dev\.jsonl and val\.jsonl could both be the validation split;"
    ):
        opened(train=["set"])


def test_folder_without_split_files(folder):
    write("set/other.jsonl", [1])
    with pytest.raises(
        DataError, match=r"^task\.data\.train=set: no file named train, .*; it has other\.jsonl\. Name the files"
    ):
        opened(train=["set"])


def test_folder_without_the_split_that_is_meant(folder):
    write("set/validation.jsonl", [1])
    write("set/test.jsonl", [1])
    with pytest.raises(DataError, match=r"^task\.data\.train=set: no train split; it has test, validation\."):
        opened(train=["set"])


def test_a_split_used_for_training_is_not_tested_on(folder):
    write("set/test.jsonl", range(40))
    splits = opened(train=["set"], holdout=0.2)
    assert not set(values(splits["train"])) & set(values(splits["test"]))


def test_builtin_and_named(folder):
    rows = {split: [Row({"a": f"{split}{n}"}, f"Lib:{n}") for n in range(3)] for split in ("train", "validation", "test")}
    splits = open_splits(Data(builtin="demo", max_test=2), lambda: rows)
    assert {split: values(source) for split, source in splits.items()} == {
        "train": ["train0", "train1", "train2"],
        "validation": ["validation0", "validation1", "validation2"],
        "test": ["test0", "test1"],
    }
    assert splits["train"].description == "built-in demo train"
    expected = hashlib.sha256(b'{"a": "train0"}\n{"a": "train1"}\n{"a": "train2"}\n').hexdigest()
    assert splits["train"].files == [{"path": "built-in demo train", "bytes": None, "sha256": expected}]
    write("t.jsonl", ["mine"])
    splits = open_splits(Data(builtin="demo", test=["t.jsonl"]), lambda: rows)
    assert (values(splits["test"]), values(splits["train"])[0]) == (["mine"], "train0")
    write("a.jsonl", ["own"])
    assert list(open_splits(Data(builtin="demo", train=["a.jsonl"], holdout=0.0), lambda: rows)) == ["train"]


def test_only_test_is_named(folder):
    write("t.jsonl", ["mine"])
    assert {split: values(source) for split, source in opened(test=["t.jsonl"]).items()} == {"test": ["mine"]}


def test_nothing_is_named():
    with pytest.raises(ConfigError, match=r"^task\.data\.train is not set and the task has no built-in set"):
        opened()


def test_missing_file_with_near_names(folder):
    write("sub/train.jsonl", [1])
    with pytest.raises(DataError) as caught:
        opened(train=["sub/trian.jsonl"])
    assert str(caught.value) == (
        f"task.data.train=sub/trian.jsonl: there is no 'trian.jsonl' in {folder}/sub. Did you mean sub/train.jsonl? "
        "Name a file, a folder, or a hub id owner/name."
    )
    for name, missing in (("nope/train.jsonl", "'nope'"), ("squad", "'squad'"), ("sub/train.jsonl/x", "'train.jsonl'")):
        with pytest.raises(DataError, match=f"^task.data.test={name}: there is no {missing} in "):
            opened(train=["sub/train.jsonl"], test=[name])


def test_unknown_file_type(folder):
    Path("a.docx").write_text("x")
    with pytest.raises(DataError, match=r"^task\.data\.train=a\.docx: unknown file type; expected one of \.jsonl"):
        opened(train=["a.docx"])


def saved(path, **splits):
    tables = {split: datasets.Dataset.from_dict(columns) for split, columns in splits.items()}
    (datasets.DatasetDict(tables) if len(tables) > 1 else next(iter(tables.values()))).save_to_disk(path)
    return str(path)


def test_save_to_disk(folder):
    name = saved(folder / "one", train={"a": ["NA", "001"], "n": [2**62 + 1, None]})
    source = opened(train=[name], holdout=0.0)["train"]
    assert [(row.fields, row.where) for row in source] == [
        ({"a": "NA", "n": 2**62 + 1}, f"{name}:row 1"),
        ({"a": "001", "n": None}, f"{name}:row 2"),
    ]
    splits = opened(train=[saved(folder / "two", train={"a": ["x"]}, dev={"a": ["y"]}, test={"a": ["z"]})])
    assert {split: values(source) for split, source in splits.items()} == {"train": ["x"], "validation": ["y"], "test": ["z"]}


def test_content_of_saved_sets_does_not_depend_on_time_or_place(folder):
    one, two, other = (
        opened(train=[saved(folder / name, train={"a": letters})], holdout=0.0)["train"]
        for name, letters in (("one", ["x", "y"]), ("two", ["x", "y"]), ("other", ["x", "z"]))
    )
    assert one.content == two.content != other.content


def test_damaged_saved_set(folder):
    name = saved(folder / "one", train={"a": ["x"]})
    Path(name, "data-00000-of-00001.arrow").write_bytes(b"x")
    with pytest.raises(DataError, match=r"one: not a readable save_to_disk folder"):
        opened(train=[name])


def test_a_saved_set_with_a_flipped_bit(folder):
    """Lengths that point beyond the file, and bytes that are no text: what pyarrow would read without a look."""
    name = saved(folder / "one", train={"a": ["x" * 9, "y" * 9]})
    path = Path(name, "data-00000-of-00001.arrow")
    good = path.read_bytes()
    lengths = good.index(b"\0\0\0\0\x09\0\0\0\x12\0\0\0")
    for place, bit in ((lengths + 7, 0x40), (lengths + 11, 0x80), (good.index(b"x" * 9) + 8, 0x80)):
        path.write_bytes(good[:place] + bytes([good[place] ^ bit]) + good[place + 1 :])
        with pytest.raises(DataError, match=r"one: damaged: .*Write or fetch the data set again\.$"):
            values(opened(train=[name], holdout=0.0)["train"])
    path.write_bytes(good)
    assert values(opened(train=[name], holdout=0.0)["train"]) == ["x" * 9, "y" * 9]


def test_hub_set(folder, monkeypatch):
    asked = []

    def load(path, **options):
        asked.append((path, options))
        tables = {"train": {"a": ["x"]}, "validation": {"a": ["y"]}, "unsupervised": {"a": ["u"]}}
        return datasets.DatasetDict({split: datasets.Dataset.from_dict(columns) for split, columns in tables.items()})

    monkeypatch.setattr(datasets, "load_dataset", load)
    splits = opened(train=["owner/set"], subset="en", revision="abc", holdout=0.0)
    assert asked == [("owner/set", {"name": "en", "revision": "abc"})]
    assert {split: values(source) for split, source in splits.items()} == {"train": ["x"], "validation": ["y"]}
    assert splits["train"].description == "owner/set[train]"
    assert [row.where for row in splits["train"]] == ["owner/set[train]:row 1"]


def test_a_named_split_of_a_hub_set(folder, monkeypatch):
    columns = {"train": ["x"], "validation_matched": ["y"], "test": ["without a label"]}
    found = datasets.DatasetDict({split: datasets.Dataset.from_dict({"a": values}) for split, values in columns.items()})
    monkeypatch.setattr(datasets, "load_dataset", lambda path, **options: found)
    own = "owner/set[validation_matched]"
    splits = opened(train=["owner/set"], validation=[own], test=[own])
    assert {split: values(source) for split, source in splits.items()} == {"train": ["x"], "validation": ["y"], "test": ["y"]}
    assert splits["test"].description == own
    with pytest.raises(DataError) as caught:
        opened(train=["owner/set"], test=["owner/set[dev]"])
    assert str(caught.value) == (
        "task.data.test=owner/set[dev]: no such split; it has train, validation_matched, test. Name one of them."
    )


def test_hub_set_that_cannot_be_loaded(folder, monkeypatch):
    def load(path, **options):
        raise ConnectionError("Couldn't reach the Hub.\nlong story")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError) as caught:
        opened(train=["owner/set"], subset="en")
    assert str(caught.value) == (
        f"task.data.train=owner/set: there is no such file or folder in {folder}, and as a hub data set (subset en) it cannot be "
        "loaded: Couldn't reach the Hub. Name a local file or folder, or correct the id, task.data.subset and task.data.revision."
    )


def test_files_do_not_load_the_datasets_library(folder):
    import subprocess

    write("a.jsonl", range(50))
    program = (
        "import sys; from llmft.config.schema import Data; from llmft.data.dataset import open_splits\n"
        "[list(s) for s in open_splits(Data(train=['a.jsonl'], holdout=0.2), None).values()]\n"
        "print([m for m in ('datasets', 'pyarrow', 'torch', 'pandas') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"

"""The audit on the way: all rows are looked at once, evaluation before training, and not again while they are the same."""

import json

import pytest

from llmft.config.schema import Data
from llmft.data.audit import audit
from llmft.data.dataset import open_splits
from llmft.errors import DataError
from llmft.tasks.prepare import encode_split, prepare_corpus
from llmft.tasks.review import Review


@pytest.fixture(autouse=True)
def _fresh_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMFT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def splits(tmp_path):
    """Splits of which some rows are in two, from files with a line that is no row; the argument is max_bad_rows."""
    files = {"train": "abcdab", "validation": "axy", "test": "bz"}
    for name, letters in files.items():
        rows = [json.dumps({"source": f"text {letter}", "target": letter.upper()}) for letter in letters]
        (tmp_path / f"{name}.jsonl").write_text("\n".join([*rows, "no row"]))

    def make(max_bad_rows=1):
        named = {name: [str(tmp_path / f"{name}.jsonl")] for name in files}
        return open_splits(Data(**named, max_bad_rows=max_bad_rows), None)

    return make


@pytest.fixture
def never(monkeypatch):
    """A formulation's `examples` from now on fails for these splits."""

    def read(learner, *names):
        whole = learner.formulation.examples

        def examples(rows):
            assert rows.split not in names, f"{rows.split} is read"
            return whole(rows)

        monkeypatch.setattr(learner.formulation, "examples", examples)
        return learner

    return read


def test_rows_are_audited_while_they_are_tokenised(open_text, splits):
    learner = open_text()
    found = prepare_corpus(learner, splits()).audit
    assert found == audit({name: learner.formulation.examples(rows) for name, rows in splits().items()})
    assert (found["rows"], found["duplicates"]) == ({"train": 6, "validation": 3, "test": 2}, 2)
    assert found["overlap"] == {"validation": 1, "test": 1}


def test_the_same_rows_are_not_read_again(open_text, splits, never, monkeypatch):
    first = splits()
    found = prepare_corpus(open_text(), first)
    again = splits()
    learner = never(open_text(), "train", "validation")
    monkeypatch.setattr(learner, "encode", None)
    second = prepare_corpus(learner, again)
    assert second.audit == found.audit
    assert [rows.bad_rows for rows in again.values()] == [rows.bad_rows for rows in first.values()]
    assert [len(rows.bad_rows) for rows in again.values()] == [1, 1, 1]
    assert second.test_examples == found.test_examples


def test_evaluation_rows_are_known_before_training_rows(open_text, splits):
    """Also where they were tokenised before, and nobody has to read them."""
    learner, given = open_text(), splits()
    encode_split(learner, given["validation"])
    assert prepare_corpus(learner, given).audit["overlap"]["validation"] == 1


def test_what_is_no_longer_allowed_is_looked_at_again(open_text, splits):
    prepare_corpus(open_text(), splits())
    with pytest.raises(DataError, match="not JSON"):
        prepare_corpus(open_text(), splits(max_bad_rows=0))


def test_a_damaged_memory_is_not_believed(open_text, splits, tmp_path):
    learner = open_text()
    expected = prepare_corpus(learner, splits()).audit
    [path] = (tmp_path / "cache" / "audits").glob("*.json")
    path.write_text(path.read_text().replace('"duplicates": 2', '"duplicates": 0'))
    assert prepare_corpus(learner, splits()).audit == expected
    path.write_text("[" * 100_000)
    assert Review(learner, splits()).found() == expected


def test_validation_rows_are_kept_only_to_be_scored(open_text, splits):
    learner = open_text()
    assert prepare_corpus(learner, splits()).validation_examples == []
    assert [row.id for row in prepare_corpus(learner, splits(), score_validation=True).validation_examples] == ["0", "1", "2"]


def test_a_mistake_shows_in_the_training_rows(open_text, splits):
    with pytest.raises(DataError, match=r"train\.jsonl:2: no column 'article'"):
        prepare_corpus(open_text(source="{article}"), splits())

"""Rows to token caches and the plan: what is counted, what is left out, when caches are made anew."""

import json
from dataclasses import replace

import numpy as np
import pytest

from llmft.config.schema import Data, Fast, Task, Training, TrainRun
from llmft.data.dataset import open_splits
from llmft.data.order import Order
from llmft.errors import DataError
from llmft.tasks import prepare
from llmft.tasks.prepare import check_path, encode_split, make_plan, prepare_corpus


@pytest.fixture
def make_source(tmp_path):
    """A split of (source, target) rows in a file of its own."""

    def make(pairs):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
        path.write_text("".join(json.dumps({"source": source, "target": target}) + "\n" for source, target in pairs))
        return open_splits(Data(train=[str(path)], holdout=0.0), None, None)["train"]

    return make


@pytest.fixture
def source(make_source):
    return make_source(
        [("The quick brown fox", "fox"), ("dog " * 40, "dog"), ("sun", "one two three four five six seven"), ("a", "b")]
    )


@pytest.fixture(autouse=True)
def _fresh_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMFT_CACHE", str(tmp_path / "cache"))


def test_targets_that_are_too_long_are_left_out_and_counted(open_text, source):
    task = open_text(max_target_tokens=6, max_source_tokens=10)
    found = encode_split(task, source)
    assert (len(found.cache), found.rows.tolist(), found.left_out) == (4, [0, 1, 3], 1)
    assert [item.id for item in found.documents([2, 0])] == ["3", "0"]
    [expected] = task.encode(next(iter(task.formulation.examples(source))))
    assert np.array_equal(found.documents([0])[0].ids, expected.ids)


def test_the_cache_is_used_while_nothing_changed(open_text, source, make_source, monkeypatch):
    task = open_text()
    encode_split(task, source)
    monkeypatch.setattr(task, "encode", None)
    encode_split(task, source)  # from the disk
    changed = [
        (open_text(), make_source([("x", "y")])),
        (open_text(max_source_tokens=7), source),
        (open_text(prompt="Q {source}"), source),
        (open_text(target="{source}"), source),
        (open_text("qwen3"), source),
    ]
    for other, rows in changed:
        calls = []
        encode = other.encode
        monkeypatch.setattr(other, "encode", lambda example, encode=encode, calls=calls: calls.append(1) or encode(example))
        encode_split(other, rows)
        assert calls


def test_nothing_to_train_on(open_text, make_source):
    rows = make_source([("a", "long target")] * 3)
    with pytest.raises(DataError) as error:
        prepare_corpus(open_text(max_target_tokens=1), {"train": rows})
    assert str(error.value) == (
        f"{rows.description}: 3 rows, all of them with targets too long; nothing to train on. Look at task.max_target_tokens and the data."
    )


def test_the_plan_counts(open_text, source, make_source):
    task = open_text(max_target_tokens=6, max_source_tokens=10)
    corpus = prepare_corpus(task, {"train": source, "test": make_source([("q", "a")])})
    run = TrainRun(task=Task(), training=Training(epochs=3, batch_size=2))
    plan = make_plan(run, task, corpus, Order(len(corpus.train.rows), 2, 42), None)
    documents = corpus.train.documents([0, 1, 2])
    assert (plan.train_rows, plan.left_out_rows, plan.validation_rows, plan.test_rows) == (3, 1, 0, 1)
    assert plan.tokens_per_epoch == sum(map(len, documents))
    assert plan.loss_units_per_epoch == sum(len(task.prompt.target_ids(text)) for text in ("fox", "dog", "b"))
    assert plan.longest_row_tokens == max(map(len, documents))
    size = len(task.pretrained.tokenizer("dog " * 40).input_ids)
    assert (plan.cut_rows, plan.cut_tokens) == (1, size - 10)
    assert (plan.steps, plan.steps_per_epoch) == (6, 2)  # 3 rows in batches of 2
    assert plan.fast_path
    assert make_plan(run, task, corpus, Order(3, 2, 42), 77).micro_tokens == 77  # as the run began


def test_the_fast_path_can_be_switched_off(open_text, source):
    task = open_text()
    corpus = prepare_corpus(task, {"train": source})
    run = TrainRun()
    assert check_path(run, task, corpus).fast
    off = check_path(replace(run, training=Training(fast=Fast.off)), task, corpus)
    assert (off.fast, off.reason) == (False, "training.fast=off")
    assert prepare.CHECKED_ROWS >= 2  # one document alone cannot show whether documents see each other

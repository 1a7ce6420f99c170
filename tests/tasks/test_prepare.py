"""Rows to token caches and the plan: what is counted, what is left out, when caches are made anew."""

import json
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from llmft.config.schema import Adapter, Data, Fast, Shuffle, Task, Training, TrainRun, Truncation
from llmft.data.dataset import open_splits
from llmft.data.order import Order
from llmft.errors import DataError
from llmft.hardware.determinism import rng_state
from llmft.models import path_check
from llmft.models.family import Family
from llmft.models.frozen import Frozen, freeze
from llmft.models.head import Head
from llmft.tasks import prepare
from llmft.tasks.prepare import check_path, encode_split, make_plan, prepare_corpus, telling
from llmft.training.trial import fullest, try_out


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
    where = rows.files[0]["path"]
    assert str(error.value) == (
        f"{rows.description}: 3 rows, all of them with targets too long ({where}:1, {where}:2, {where}:3); nothing to train on. "
        "Look at task.max_target_tokens and the data."
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
    assert plan.trial_bytes >= 0
    assert not any(weight.grad.any() for _, weight in task.pretrained.trained if weight.grad is not None)
    assert make_plan(run, task, corpus, Order(3, 2, 42), 77).micro_tokens == 77  # as the run began
    fewer = replace(run, training=Training(batch_size=2, micro_tokens=50))
    assert make_plan(fewer, task, corpus, Order(3, 2, 42), 77).micro_tokens == 50  # asked for since


def test_what_does_not_fit_is_cut_smaller_and_said(open_text, source, monkeypatch, capsys):
    task = open_text()
    corpus = prepare_corpus(task, {"train": source})
    loss = task.loss

    def limited(documents):
        if sum(map(len, documents)) > 110:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return loss(documents)

    monkeypatch.setattr(task, "loss", limited)
    plan = make_plan(TrainRun(training=Training(batch_size=4, fast=Fast.off)), task, corpus, Order(4, 4, 42), 240)
    assert plan.micro_tokens == 120
    assert "240 tokens at once do not fit in memory, 120 do; this does not change the result" in capsys.readouterr().err


def test_the_fast_path_can_be_switched_off(open_text, source):
    task = open_text()
    corpus = prepare_corpus(task, {"train": source})
    run = TrainRun()
    assert check_path(run, task, corpus).fast
    off = check_path(replace(run, training=Training(fast=Fast.off)), task, corpus)
    assert (off.fast, off.reason) == (False, "training.fast=off")
    assert prepare.CHECKED_ROWS >= 2  # one document alone cannot show whether documents see each other


@pytest.mark.parametrize(
    ("kind", "settings", "kept"),
    [
        ("llama", {}, True),
        ("llama", {"epochs": 1}, False),
        ("llama", {"max_steps": 3}, False),  # of two an epoch
        ("llama", {"fast": Fast.off}, False),
        ("llama", {"shuffle": Shuffle.texts}, False),
        ("gpt2", {}, False),  # by transformers' layers
        ("t5", {}, False),
    ],
)
def test_what_frozen_layers_give_is_kept_where_it_is_read_again(open_text, source, kind, settings, kept):
    learner = open_text(kind)
    freeze(learner.pretrained.model, 1)
    learner.pretrained.frozen = Frozen(1)
    corpus = prepare_corpus(learner, {"train": source})
    run = TrainRun(adapter=Adapter(frozen_layers=1), training=Training(**{"epochs": 2, "batch_size": 2} | settings))
    plan = make_plan(run, learner, corpus, Order(4, 2, 42), None)
    assert plan.frozen_states_kept is kept
    assert ("computed once for each document" in plan.summary()["frozen"]) is kept
    assert (learner.pretrained.frozen.states is not None) is kept
    assert not (kept and learner.shares)


@pytest.fixture
def planned(open_text, source):
    """Plan a run over two epochs with a frozen layer."""

    def plan():
        learner = open_text("llama")
        freeze(learner.pretrained.model, 1)
        learner.pretrained.frozen = Frozen(1)
        corpus = prepare_corpus(learner, {"train": source})
        run = TrainRun(adapter=Adapter(frozen_layers=1), training=Training(epochs=2, batch_size=2))
        return learner, make_plan(run, learner, corpus, Order(4, 2, 42), None)

    return plan


def test_a_full_disk_does_not_change_how_it_is_computed(planned, monkeypatch):
    monkeypatch.setattr(os, "fstatvfs", lambda _: SimpleNamespace(f_bavail=0, f_frsize=1))
    learner, plan = planned()
    assert plan.frozen_states_kept
    assert not learner.shares
    assert len(learner.pretrained.frozen.states) == 0


def test_nothing_is_kept_for_a_path_that_was_refused(planned, monkeypatch):
    monkeypatch.setattr(path_check, "LOSS_TOLERANCE", {torch.float32: -1.0})
    learner, plan = planned()
    assert not plan.fast_path
    assert not plan.frozen_states_kept
    assert learner.pretrained.frozen.states is None


@pytest.mark.parametrize("base", [SimpleNamespace(), SimpleNamespace(embeddings_project=None)])
def test_nothing_is_kept_of_an_encoder_with_a_product_before_its_layers(base):
    model = SimpleNamespace(base_model=base, device=torch.device("cpu"), config=SimpleNamespace(hidden_size=8))
    pretrained = SimpleNamespace(frozen=Frozen(1), model=model, head=Head.label, family=Family.encoder)
    prepare.keep_states(TrainRun(), SimpleNamespace(pretrained=pretrained, precision=torch.float32), passes=2)
    assert (pretrained.frozen.states is None) is hasattr(base, "embeddings_project")


@pytest.mark.parametrize(
    ("lengths", "expected"), [([9, 5, 5, 7, 6], [1, 4]), ([5, 5, 5], [0, 1]), ([8, 3], [1, 0]), ([4], [0])]
)
def test_documents_of_two_lengths_are_compared(lengths, expected):
    """Of equal ones a padded batch has no padding, and would not show whether it is left out."""
    given = SimpleNamespace(lengths=np.array(lengths), documents=lambda places: places)
    learner = SimpleNamespace(check_fast_path=lambda places: places)
    assert check_path(TrainRun(), learner, SimpleNamespace(train=given)) == expected


def state_of(model):
    tensors, values = rng_state()
    return {**{name: tensor.clone() for name, tensor in model.state_dict().items()}, **tensors}, values


@pytest.mark.parametrize("kind", ["gpt2", "t5", "bart"])  # with dropout
@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_of_a_trial(open_text, source, kind, fails):
    learner = open_text(kind)
    model = learner.pretrained.model
    model.train()
    before, values = state_of(model)
    documents = prepare_corpus(learner, {"train": source}).train.documents([0, 1, 2])
    drawn = []

    def loss(micro_batch):
        drawn.append(torch.rand(1))
        if fails and len(drawn) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return learner.loss(micro_batch)

    weights = [weight for _, weight in learner.pretrained.trained]
    taken = try_out(loss, weights, [documents[:2], documents[2:]], 2**30, torch.device("cpu"))
    assert (taken is None) is fails
    assert len(drawn) == 2
    after, same_values = state_of(model)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert values == same_values
    assert not any(weight.grad.any() for weight in weights if weight.grad is not None)


def test_test_rows_that_are_too_long_are_an_error_before_the_training(open_text, source, make_source):
    task = open_text(max_source_tokens=60, truncation=Truncation.error)
    short = make_source([("a", "b")])
    long = make_source([("a", "b"), ("dog " * 400, "dog")])
    with pytest.raises(DataError, match=r"\.jsonl:2: the source has \d+ tokens, task\.max_source_tokens allows 60\."):
        prepare_corpus(task, {"train": short, "test": long})
    assert len(prepare_corpus(open_text(max_source_tokens=60), {"train": short, "test": long}).test_examples) == 2


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_documents_of_one_length_beyond_a_batch_tell_nothing(monkeypatch, block):
    """The dearest micro-batches of all documents are made of those kept, and they are the same ones, read in blocks or at once."""
    monkeypatch.setattr(prepare, "LOOKED_AT", block)
    chance = np.random.default_rng(11)
    for _ in range(100):
        lengths = chance.integers(1, 9, chance.integers(1, 60)).astype(np.int32)
        batch_size, micro_tokens = int(chance.integers(1, 5)), int(chance.integers(8, 30))
        some = telling(lengths, batch_size)
        assert np.bincount(lengths[some]).max() <= batch_size
        assert (np.diff(some) > 0).all()
        expected = fullest(lengths, batch_size, micro_tokens)
        found = [some[places] for places in fullest(lengths[some], batch_size, micro_tokens)]
        for kept, whole in zip(found, expected, strict=True):
            assert sorted(lengths[kept]) == sorted(lengths[whole])
        assert found[0].tolist() == expected[0].tolist()

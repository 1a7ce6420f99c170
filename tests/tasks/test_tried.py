"""The trial before step 1: made once for what is the same, and again where anything that takes memory is another."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from llmft.config.schema import Adapter, Data, Optimizer, Training, TrainRun
from llmft.data.dataset import open_splits
from llmft.models.path_check import PathCheck
from llmft.tasks import tried
from llmft.tasks.prepare import encode_split
from llmft.tasks.tried import fitting_as_before
from llmft.training.memory import with_moments

GIB = 1 << 30
PLAIN = PathCheck(False, "")
RUN = TrainRun(training=Training(batch_size=2))


@pytest.fixture
def attempt(open_text, tmp_path, monkeypatch):
    """Ask for the trial of 4 documents; returns what it gave, and how many passes that took."""
    monkeypatch.setenv("LLMFT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"source": "the dog " * n, "target": "fox"}) + "\n" for n in range(1, 5)))
    source = open_splits(Data(train=[str(path)], holdout=0.0), None)["train"]

    def make(run=RUN, path=PLAIN, planned=400, free=64 * GIB, fails_above=None, **settings):
        learner = open_text(**settings)
        train = encode_split(learner, source)
        whole, passes = learner.loss, []

        def loss(documents):
            passes.append(1)
            if fails_above is not None and sum(map(len, documents)) > fails_above:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return whole(documents) * 1.0

        monkeypatch.setattr(learner, "loss", loss)
        return fitting_as_before(run, learner, path, train, np.arange(len(train.rows)), planned, 1000, free), len(passes)

    return make


def test_what_went_well_is_not_tried_again(attempt):
    first, passes = attempt()
    assert passes
    assert attempt() == (first, 0)


def test_what_is_another_is_tried(attempt, monkeypatch):
    attempt()
    assert attempt(TrainRun(training=Training(batch_size=4)))[1]
    assert attempt(TrainRun(training=Training(batch_size=2), adapter=Adapter(r=3)))[1]
    assert attempt(planned=200)[1]
    assert attempt(path=PathCheck(True, ""))[1]
    assert attempt(prompt="Q: {source}")[1]
    assert attempt(name="qwen3")[1]
    monkeypatch.setattr(tried, "code_mark", lambda: "edited")
    assert attempt()[1]


def test_the_learning_rate_takes_no_memory(attempt):
    attempt()
    assert attempt(replace(RUN, optimizer=Optimizer(lr=0.5), seed=7))[1] == 0


def test_what_it_took_has_to_be_free_now(attempt, monkeypatch):
    monkeypatch.setattr(tried, "fitting", lambda *given: (400, GIB))
    assert attempt() == ((400, GIB), 0)
    asked = []
    monkeypatch.setattr(tried, "fitting", lambda *given: asked.append(given[8]) or (100, 5))
    need = with_moments(GIB, 1000)
    assert attempt(free=need) == ((400, GIB), 0)
    assert attempt(free=need - 1) == ((100, 5), 0)
    assert asked == [need - 1]


def test_what_did_not_fit_may_fit_the_next_time(attempt):
    (micro_tokens, _), _ = attempt(fails_above=45)
    assert micro_tokens < 400
    (micro_tokens, _), passes = attempt()
    assert micro_tokens == 400
    assert passes

"""The trial: the dearest micro-batch is found, nothing is left of it, and what does not fit is cut smaller."""

import random
from itertools import combinations

import numpy as np
import pytest
import torch

from llmft.data.batch import cut
from llmft.data.encode import Encoded
from llmft.errors import DoesNotFit
from llmft.hardware import heap
from llmft.training import trial
from llmft.training.trial import dearest, fitting, fullest, halved, try_out

CPU = torch.device("cpu")
GIB = 2**30


def documents_of(lengths):
    return [
        Encoded(str(place), np.zeros(length, np.int32), np.ones(length, np.bool_), None, f"f:{place}", length)
        for place, length in enumerate(lengths)
    ]


def test_no_step_has_a_dearer_micro_batch():
    chance = random.Random(5)
    print("seed 5")
    for _ in range(200):
        lengths = np.array([chance.randint(1, 40) for _ in range(chance.randint(1, 12))])
        batch_size, micro_tokens = chance.randint(1, 4), chance.randint(40, 120)
        documents = documents_of(lengths)
        batches = [[documents[place] for place in places] for places in fullest(lengths, batch_size, micro_tokens)]
        tried = dearest(cut, batches, micro_tokens)
        assert all(piece in cut(piece, micro_tokens) for piece in tried)
        most, longest = (max(sum(map(len, piece)) for piece in tried), max(len(each) for piece in tried for each in piece))
        assert longest == lengths.max()
        # neighbours in length bound what any step's micro-batch of as many documents can hold, up to one document's difference
        steps = combinations(documents, min(batch_size, len(documents)))
        worst = max(sum(map(len, piece)) for step in steps for piece in cut(step, micro_tokens))
        assert most >= worst * 0.75


@pytest.mark.parametrize(
    ("lengths", "micro_tokens", "expected"),
    [
        ([10, 10, 10, 10], 40, 20),
        ([10, 10, 10, 10], 1000, 20),
        ([30, 10, 10, 10], 59, 20),  # 29 would still be one micro-batch of 30, 10, 10; 40 fits 30 and 10
        ([10], 40, None),
    ],
)
def test_halved(lengths, micro_tokens, expected):
    found = halved(cut, documents_of(lengths), micro_tokens)
    if expected is None:
        assert found is None
        return
    before, after = (len(cut(documents_of(lengths), tokens)) for tokens in (micro_tokens, found))
    assert after > before
    assert found <= micro_tokens // 2
    assert len(cut(documents_of(lengths), found * 2)) == before  # not smaller than it has to be


def test_other_errors_are_not_taken_for_want_of_memory():
    def broken(micro_batch):
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        try_out(broken, [], [documents_of([3])], GIB, CPU)


def test_memory_is_measured_and_refused():
    heap.begin()  # as in every run; what went before in this process may have left a heap with holes that does not give back
    weight = torch.nn.Parameter(torch.ones(1))

    def loss(micro_batch):  # 1 MiB a token, kept for the backward pass
        return (weight * torch.ones(len(micro_batch[0]) << 18)).square().sum()

    taken = try_out(loss, [weight], [documents_of([200])], 4 * GIB, CPU)
    assert 400 << 20 < taken < 1100 << 20  # the ones, the product and its square, and two gradients
    assert try_out(loss, [weight], [documents_of([200])], 100 << 20, CPU) is None
    assert try_out(loss, [weight], [documents_of([200])], 4 * GIB, CPU) is not None  # the limit is gone


@pytest.mark.parametrize(("most", "expected"), [(1000, 160), (100, 80), (45, 40), (20, 20)])
def test_the_budget_is_halved_until_it_fits(monkeypatch, most, expected):
    tried = []

    def taken(loss, weights, micro_batches, room, device):
        tried.append(max(sum(map(len, each)) for each in micro_batches))
        return 1 if tried[-1] <= most else None

    monkeypatch.setattr(trial, "try_out", taken)
    lengths = [20] * 16
    documents = documents_of(lengths)
    found = fitting(
        None, cut, [], lambda places: [documents[place] for place in places], np.array(lengths), 8, 160, 0, GIB, CPU
    )
    assert found == (expected, 1)


def test_a_trial_that_leaves_no_room_for_the_optimizer_does_not_fit(monkeypatch):
    monkeypatch.setattr(trial, "try_out", lambda *_: GIB // 2)
    documents = documents_of([20, 20])
    with pytest.raises(DoesNotFit) as error:
        fitting(None, cut, [], lambda places: [documents[each] for each in places], np.array([20, 20]), 2, 40, GIB, GIB, CPU)
    assert str(error.value) == (
        "training on a row of 20 tokens takes 1.3 GiB in a trial, 1 GiB are free. Set model.gradient_checkpointing=true, "
        "adapter=lora, a smaller task.max_source_tokens, or a smaller model."
    )

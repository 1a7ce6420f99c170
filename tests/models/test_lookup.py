"""The gradient of an embedding table, written row by row, against torch's."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from llmft.models.lookup import looked_up, writable
from llmft.models.loss import token_loss
from llmft.training.optimizer import adafactor, adamw, gradient_norm, muon, sgd, update

untied = SimpleNamespace(get_output_embeddings=lambda: None)


def tables(padding=None):
    torch.manual_seed(0)
    one, two = nn.Embedding(20, 6, padding_idx=padding), nn.Embedding(20, 6, padding_idx=padding)
    two.load_state_dict(one.state_dict())
    return one, two


def passed(table, read, ids):
    rows = read(ids)
    (rows * torch.linspace(-1, 2, rows.numel()).view_as(rows)).sum().backward()
    return rows


BATCHES = [torch.tensor([[3, 4, 3], [0, 19, 4]]), torch.tensor([[7, 3]]), torch.tensor([[5], [5]])]


@pytest.mark.parametrize("padding", [None, 3])
def test_the_gradient_is_torchs(padding):
    ours, theirs = tables(padding)
    for _ in range(2):
        for ids in BATCHES:  # micro-batches of a step add up
            assert passed(ours, lambda ids: looked_up(untied, ours, ids), ids).equal(passed(theirs, theirs, ids))
            torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
        ours.weight.grad = theirs.weight.grad = None


@pytest.mark.parametrize("make", [adamw, sgd, adafactor, muon])
def test_what_a_step_has_written_is_gone_in_the_next(make):
    """Optimizers read gradients and clipping scales them: rows that were not read stay zero."""
    ours, theirs = tables()
    optimizers = [make([{"params": [table.weight], "weight_decay": 0.1}], 0.1, 0.1)[0] for table in (ours, theirs)]
    memory = set()
    for ids in BATCHES * 2:
        passed(ours, lambda ids: looked_up(untied, ours, ids), ids)
        passed(theirs, theirs, ids)
        memory.add(ours.weight.grad.data_ptr())
        for table, optimizer in zip((ours, theirs), optimizers, strict=True):
            update([optimizer], gradient_norm([table.weight]), 0.5)
            optimizer.zero_grad()
        torch.testing.assert_close(ours.weight, theirs.weight)
    assert len(memory) == 1


@pytest.mark.parametrize("padding", [None, 3])
def test_a_table_that_also_scores(padding):
    """Both parts of its gradient, over micro-batches and steps, as torch adds them up."""
    ours, theirs = tables(padding)
    tied = SimpleNamespace(get_output_embeddings=lambda: SimpleNamespace(weight=ours.weight))
    targets = torch.arange(20)
    for _ in range(2):
        for ids in BATCHES:
            for table, read in ((ours, lambda ids: looked_up(tied, ours, ids)), (theirs, theirs)):
                rows = read(ids).flatten(0, -2).tanh()
                token_loss(rows, head_of(table), targets[: len(rows)]).backward()
            torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
        ours.weight.grad = theirs.weight.grad = None
    passed(ours, lambda ids: looked_up(tied, ours, ids), BATCHES[0])  # nothing is scored
    passed(theirs, theirs, BATCHES[0])
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)


def head_of(table):
    head = nn.Linear(6, 20, bias=False)
    head.weight = table.weight
    return head


def test_what_is_no_plain_trained_table_is_left_to_torch():
    (plain, frozen), odd = tables(), nn.Embedding(20, 6, max_norm=1.0)
    frozen.weight.requires_grad_(False)
    assert [writable(table) for table in (plain, frozen, odd, nn.Linear(6, 20))] == [True, False, False, False]
    with torch.no_grad():
        assert not writable(plain)

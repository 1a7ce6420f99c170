"""The chunked loss against the one call it stands for."""

import pytest
import torch
import torch.nn.functional as F

from llmft.models import loss
from llmft.models.filling import to_rows
from llmft.models.loss import token_loss


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 23, 24])
def test_chunks_change_neither_loss_nor_gradients(monkeypatch, rows):
    monkeypatch.setattr(loss, "CHUNK_ROWS", 8)
    torch.manual_seed(rows)
    hidden = torch.randn(rows, 5, dtype=torch.float64, requires_grad=True)
    head = torch.nn.Linear(5, 11).double()
    targets = torch.randint(11, (rows,))
    logits_seen = []

    def counted(states):
        logits_seen.append(len(states))
        return head(states)

    wanted = (hidden, head.weight, head.bias)
    found = token_loss(hidden, counted, targets)
    found_gradients = torch.autograd.grad(found, wanted)
    expected = F.cross_entropy(head(hidden).float(), targets, reduction="sum")
    expected_gradients = torch.autograd.grad(expected, wanted)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    for one, two in zip(found_gradients, expected_gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-7)
    chunks = [8] * (rows // 8) + [rows % 8] * (rows % 8 > 0)
    again = chunks if rows > 8 else []  # the logits of chunks are not kept but computed again
    assert sorted(logits_seen) == sorted(chunks + again)


def test_by_hand():
    logits = torch.tensor([[0.0, 0.0], [3.0**0.5, 0.0]])
    expected = torch.log(torch.tensor(2.0)) + torch.log1p(torch.exp(torch.tensor(3.0**0.5)))
    assert token_loss(logits, lambda states: states, torch.tensor([0, 1])).item() == pytest.approx(expected.item())


def test_bf16_logits_are_summed_in_float32():
    logits = torch.zeros(3000, 2, dtype=torch.bfloat16)
    found = token_loss(logits, lambda states: states, torch.zeros(3000, dtype=torch.int64))
    assert found.dtype is torch.float32
    assert found.item() == pytest.approx(3000 * 0.6931472, rel=1e-5)


@pytest.mark.parametrize("rows", [1, 16, 21])
def test_rows_that_fill_up_change_nothing(monkeypatch, rows):
    """In bf16, with numbers that it holds exactly, so that only the rows could make a difference."""
    torch.manual_seed(0)
    hidden = torch.randint(-2, 3, (rows, 8)).bfloat16().requires_grad_()
    head = torch.nn.Linear(8, 11, bias=False).bfloat16()
    torch.nn.init.constant_(head.weight, 0.5).data[3] = -1
    targets = torch.randint(11, (rows,))
    seen = []
    monkeypatch.setattr(loss.filling, "to_rows", lambda x, count: seen.append(count) or to_rows(x, count))
    found = token_loss(hidden, head, targets)
    found_gradients = torch.autograd.grad(found, [hidden, head.weight])
    assert seen == [-(-rows // 16) * 16]
    expected = F.cross_entropy(head(hidden).float(), targets, reduction="sum")
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    for one, two in zip(found_gradients, torch.autograd.grad(expected, [hidden, head.weight]), strict=True):
        torch.testing.assert_close(one, two, rtol=0.02, atol=0.02)

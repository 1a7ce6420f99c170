"""Masks of one byte a number: the rate, chance that can be repeated, and the mean that dropout keeps."""

import pytest
import torch

from llmft.models.dropout import draw, dropped


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.003, 0.9, 0.99])
def test_the_rate_is_met(rate):
    torch.manual_seed(0)
    like = torch.empty(2000, 1000)
    share = 1 - draw((2000, 1000), rate).ones(like).mean().item()
    # 2,000,000 draws, the rate of a row 0.4 % apart at most: five deviations of the mean
    assert share == pytest.approx(rate, abs=5 * ((rate * (1 - rate) / 2e6) ** 0.5 + 0.002 / 2000**0.5))


def test_numbers_are_dropped_by_themselves():
    torch.manual_seed(0)
    ones = draw((4000, 64), 0.3).ones(torch.empty(4000, 64)).double()
    correlations = torch.corrcoef(ones.t()).fill_diagonal_(0)
    assert correlations.abs().max() < 5 / 4000**0.5
    assert torch.corrcoef(ones.view(-1, 8).t()).fill_diagonal_(0).abs().max() < 5 / 32000**0.5  # bytes of one word


def test_the_generators_state_repeats_a_mask():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    one, two = draw((5, 7), 0.5), draw((5, 7), 0.5)
    torch.set_rng_state(state)
    again = draw((5, 7), 0.5)
    assert again.drawn_NC.equal(one.drawn_NC)
    assert again.least_N1.equal(one.least_N1)
    assert not again.drawn_NC.equal(two.drawn_NC)


def test_dropped_keeps_the_mean_and_does_nothing_outside_training():
    torch.manual_seed(0)
    x = torch.ones(500, 400, requires_grad=True)
    found = dropped(x, 0.2, training=True)
    assert found.unique().tolist() == [0.0, 1.25]
    assert found.mean().item() == pytest.approx(1, abs=0.01)
    found.sum().backward()
    assert x.grad.equal(found.detach())
    assert dropped(x, 0.2, training=False) is x
    assert dropped(x, 0.0, training=True) is x

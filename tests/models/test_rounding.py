"""Rounding by thresholds, against what the numbers are, and fine-tuning by it against fine-tuning in float32."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from llmft.data.batch import Batch, stream_of
from llmft.models import rounding
from llmft.models.flat.decoder import flat_states, layers_of
from llmft.models.forward import Path, batch_loss, flat_loss
from llmft.models.path_check import check_fast_path
from llmft.models.rounding import mark_coarse, narrow, narrow_rows, nearest, share_near

BF16 = torch.bfloat16


def weight_of(numbers):
    """A weight that is rounded by thresholds, whatever its numbers are."""
    weight = nn.Parameter(numbers)
    weight.coarse = True
    return weight


@pytest.fixture
def drawn():
    torch.manual_seed(0)
    return torch.randn(700, 500) * 0.05  # more than a block, and no multiple of it


def test_numbers_of_bfloat16_stay_what_they_are(drawn):
    numbers = drawn.to(BF16).float()
    numbers[0, :6] = torch.tensor([0.0, -0.0, 1.0, -1.0, 3.3895314e38, 1e-40]).to(BF16).float()
    assert torch.equal(narrow(weight_of(numbers), BF16), numbers.to(BF16))


def test_each_number_becomes_one_of_the_two_beside_it(drawn):
    found = narrow(weight_of(drawn), BF16).float()
    step = torch.exp2(torch.floor(torch.log2(drawn.abs())) - 7)  # eight bits, the first of which is not written
    assert ((found - drawn).abs() < step).all()
    assert torch.equal(narrow(weight_of(drawn), BF16).float(), found)


def test_small_moves_show_in_the_mean_and_are_lost_by_the_nearest_number(drawn):
    start = drawn.to(BF16).float()
    step = torch.exp2(torch.floor(torch.log2(start.abs())) - 7)
    moved = start + 0.1 * step * start.sign()
    up = (narrow(weight_of(moved), BF16).float() - start).abs() / step
    assert torch.equal(moved.to(BF16).float(), start)
    assert up.unique().tolist() == [0, 1]
    assert up.mean().item() == pytest.approx(0.1, abs=5 * (0.09 / up.numel()) ** 0.5)  # five deviations of a binomial share


def test_only_coarse_weights_and_only_in_16_bits(drawn):
    weight = nn.Parameter(drawn)
    assert torch.equal(narrow(weight, BF16), drawn.to(BF16))
    weight.coarse = True
    assert narrow(weight, torch.float32) is weight
    assert not torch.equal(narrow(weight, BF16), drawn.to(BF16))


def test_shares_of_numbers_near_to_bfloat16(drawn):
    born = drawn.to(BF16).float()
    assert share_near([born]) == 1
    assert share_near([drawn]) == pytest.approx(1 / 8, abs=0.03)  # by chance; six deviations of 4,096 numbers
    assert share_near([drawn.half().float()]) == pytest.approx(1 / 8, abs=0.03)  # three bits more, one in eight of them zero
    assert share_near([born, drawn]) == pytest.approx(9 / 16, abs=0.03)


@pytest.mark.parametrize("grain", [BF16, torch.float32])
def test_a_fine_tuned_checkpoint_is_read_as_the_one_that_it_came_from(grain, tmp_path):
    model = tiny_llama(grain)
    assert all(weight.coarse == (grain is BF16) for weight in model.parameters())
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.01 * torch.randn_like(weight)
    model.save_pretrained(tmp_path)
    again = LlamaForCausalLM.from_pretrained(tmp_path)
    mark_coarse(again)
    assert all(weight.coarse == (grain is BF16) for weight in again.parameters())
    assert hasattr(again.config, "coarse_weights") == (grain is BF16)


def test_rows_are_those_of_the_rounded_table_and_give_their_gradient_back():
    torch.manual_seed(0)
    table = weight_of(torch.randn(900, 600))  # two blocks
    ids = torch.tensor([3, 899, 0, 3, 436, 437])
    rows = table[ids]
    found = narrow_rows(rows, table, ids, BF16)
    assert torch.equal(found, narrow(table, BF16)[ids])
    given = torch.randn(found.shape).to(BF16)
    found.backward(given)
    assert torch.equal(table.grad[899], given[1].float())


def tiny_llama(grain=BF16):
    """A random decoder whose weights are numbers of a format, by default bfloat16, as those of most checkpoints."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    config.tie_word_embeddings = True
    model = LlamaForCausalLM(config)
    for weight in model.parameters():
        weight.data = weight.data.to(grain).float()
    mark_coarse(model)
    return model


def batch_of():
    """One document, all of whose tokens carry loss."""
    ids = np.random.default_rng(0).integers(0, 97, 65)
    return Batch(stream_of([ids[:-1]]), None, torch.arange(64), torch.from_numpy(ids[1:]), ("row",), 64)


def losses(precision, steps=30):
    """Losses of small steps of AdamW, each weight by 1/50 of the way to its neighbours."""
    model, batch, found = tiny_llama(), batch_of(), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-6)
    for _ in range(steps):
        loss = flat_loss(model, batch, precision)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item() / batch.units)
    return found


def test_small_steps_are_learnt_as_in_float32(monkeypatch):
    exact, found = losses(torch.float32), losses(BF16)
    monkeypatch.setattr(rounding, "is_coarse", lambda weight, dtype: False)
    nearest = losses(BF16)
    fallen, by_thresholds, by_nearest = (each[0] - each[-1] for each in (exact, found, nearest))
    assert by_thresholds == pytest.approx(fallen, rel=0.1)
    assert by_nearest < 0.7 * fallen


def test_all_weights_of_a_written_out_decoder_are_rounded_so():
    """Each weight, moved by a tenth of the way, changes what is computed."""
    model, batch = tiny_llama(), batch_of()
    layers = layers_of(model)
    with torch.no_grad():
        before = flat_loss(model, batch, BF16).item()
        for name, weight in model.named_parameters():
            if name == "model.norm.weight":  # computed in float32
                continue
            kept = weight.detach().clone()
            weight += 0.1 * torch.exp2(torch.floor(torch.log2(weight.abs())) - 7)
            assert torch.equal(weight.to(BF16), kept.to(BF16))
            assert flat_loss(model, batch, BF16).item() != before, name
            weight.copy_(kept)
        assert flat_loss(model, batch, BF16).item() == before
        assert flat_states(model, layers, batch, BF16).dtype is BF16


def fine_tuned():
    """A decoder that has been trained for some steps, so that its weights are between the numbers of bfloat16."""
    model = tiny_llama()
    with torch.no_grad():
        for weight in model.parameters():
            step = torch.exp2(torch.floor(torch.log2(weight.abs())) - 7)
            weight += 0.4 * step * torch.randn_like(weight).sign()
    return model.eval()


def test_plain_and_fast_paths_read_the_same_weights():
    model, batch = fine_tuned(), batch_of()
    with torch.no_grad():
        exact, *found = (
            batch_loss(model, batch, precision, path).item()
            for precision, path in ((torch.float32, Path.plain), (BF16, Path.plain), (BF16, Path.ragged), (BF16, Path.flat))
        )
        with nearest(model):
            apart = batch_loss(model, batch, BF16, Path.plain).item()
    assert found == pytest.approx([exact] * 3, rel=2e-3)
    assert apart != found[0]


def test_a_fine_tuned_checkpoint_takes_the_fast_path_again(monkeypatch):
    """Its self-check is about layers, not about rounding."""
    seen = []
    monkeypatch.setattr(rounding, "by_thresholds", lambda weight: seen.append(weight) or weight.bfloat16())
    found = check_fast_path(fine_tuned(), batch_of(), BF16)
    assert (found.path, seen) == (Path.flat, [])


def test_weights_that_are_unpacked_by_hooks_are_rounded_as_before():
    """As under gradient checkpointing, where autograd makes the tensors that it has kept anew."""
    model, batch = fine_tuned(), batch_of()
    flat_loss(model, batch, BF16).backward()
    expected = [weight.grad for weight in model.parameters()]
    model.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(
        lambda kept: kept.detach().clone().requires_grad_(kept.requires_grad), lambda kept: kept
    ):
        flat_loss(model, batch, BF16).backward()
    for weight, gradient in zip(model.parameters(), expected, strict=True):
        assert torch.equal(weight.grad, gradient)

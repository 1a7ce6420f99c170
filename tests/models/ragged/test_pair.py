"""Encoder-decoders over flat tokens against transformers' own loss, one document at a time."""

from dataclasses import replace

import model_reference
import numpy as np
import pytest
import torch
from model_reference import gradients
from transformers import AutoModelForSeq2SeqLM, MT5Config
from transformers.models.mt5.modeling_mt5 import MT5LayerNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from llmft.config.schema import Adapter, AdapterKind
from llmft.data.batch import collate_pair
from llmft.hardware.precision import autocast
from llmft.models.adapter import add_adapter
from llmft.models.attention import checkpoint_layers
from llmft.models.padded import pair_loss
from llmft.models.ragged.pair import flat_pair_loss, reason_against

FLAT = ["t5", "bart", "marian"]
GATED = MT5Config(
    vocab_size=90, d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0, tie_word_embeddings=False
)


def flat_loss(model, items, dtype):
    return flat_pair_loss(model, collate_pair(items, model.config.decoder_start_token_id), dtype)


@pytest.fixture
def open_model(open_tiny, loud):
    def load(name):
        if name != "gated":
            return open_tiny(name).model
        torch.manual_seed(0)
        return loud(AutoModelForSeq2SeqLM.from_config(GATED))

    return load


def exact_norm(self, x):
    """T5's norm without its rounding to float32 on the way, which weights this loud blow up to 1e-4."""
    return self.weight * x / (x.square().mean(-1, keepdim=True) + self.variance_epsilon).sqrt()


def with_adapter(pretrained):
    """A model whose adapter says something: PEFT begins with updates of 0."""
    add_adapter(pretrained, Adapter(name=AdapterKind.lora, r=2))
    for name, weight in pretrained.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return pretrained.model


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("name", "adapted"), [*((name, adapted) for name in FLAT for adapted in (False, True)), ("gated", False)]
)
def test_loss_and_gradients_are_those_of_plain_transformers(open_tiny, open_model, pairs, name, adapted, monkeypatch):
    monkeypatch.setattr(T5LayerNorm, "forward", exact_norm)
    monkeypatch.setattr(MT5LayerNorm, "forward", exact_norm)
    model = (with_adapter(open_tiny(name)) if adapted else open_model(name)).double()  # weights this loud blow rounding up
    for buffer_name, buffer in model.named_buffers():
        if buffer_name == "final_logits_bias":  # zero in most folders, which would hide that it is left out
            buffer.normal_()
    assert reason_against(model) is None
    expected = sum(model_reference.pair_loss(model, item) for item in pairs)
    wanted = gradients(model, expected)
    loss = flat_loss(model, pairs, torch.float64)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)  # both end in float32
    found = gradients(model, loss)
    assert found.keys() == wanted.keys()
    least = 1e-3 * max(gradient.norm() for gradient in wanted.values())  # a key's bias moves no softmax
    for weight, gradient in wanted.items():
        assert (found[weight] - gradient).norm() <= 1e-5 * max(gradient.norm(), least), weight


@pytest.mark.parametrize("name", FLAT)
def test_a_document_does_not_depend_on_its_batch(open_model, pairs, name):
    model = open_model(name)
    with torch.no_grad():
        alone = [flat_loss(model, [item], torch.float32).item() for item in pairs]
        for place, item in enumerate(pairs):  # each one's share of a batch, told by leaving the others without loss
            silent = [replace(other, loss_mask=np.zeros(len(other.ids), bool)) for other in pairs]
            silent[place] = item
            assert flat_loss(model, silent, torch.float32).item() == pytest.approx(alone[place], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", FLAT)
def test_dropout_is_there_in_training_alone_and_on_average_changes_little(open_tiny, pairs, name):
    model = open_tiny(name).model
    with torch.no_grad():
        still = flat_loss(model, pairs, torch.float32).item()
        assert flat_loss(model, pairs, torch.float32).item() == still
        model.train()
        torch.manual_seed(0)
        state = torch.get_rng_state()
        drawn = [flat_loss(model, pairs, torch.float32).item() for _ in range(3)]
        torch.set_rng_state(state)
        assert flat_loss(model, pairs, torch.float32).item() == drawn[0]
    assert len({still, *drawn}) == 4


@pytest.mark.parametrize("name", FLAT)
def test_bfloat16_is_as_far_from_float32_as_autocast(open_tiny, pairs, name):
    model = open_tiny(name).model
    for weight in model.parameters():
        weight.data /= 4  # as loud as they are, rounding to 8 bits would change the answer
    batch = collate_pair(pairs, model.config.decoder_start_token_id)
    expected = pair_loss(model, batch).item()
    with torch.no_grad(), autocast(torch.device("cpu"), torch.bfloat16):
        padded = pair_loss(model, batch).item()
    loss = flat_loss(model, pairs, torch.bfloat16)
    loss.backward()
    assert all(weight.grad is None or weight.grad.dtype is torch.float32 for weight in model.parameters())
    assert abs(loss.item() - expected) <= max(3 * abs(padded - expected), 5e-3 * expected)


def test_what_is_not_known_is_said(open_tiny):
    assert reason_against(open_tiny("mbart").model) == "mbart is not made of layers known here"
    pretrained = open_tiny("bart")
    add_adapter(pretrained, Adapter(name=AdapterKind.lora, r=2, dropout=0.1))
    assert reason_against(pretrained.model) is None
    layer = pretrained.model.get_encoder().layers[1].fc1
    layer.lora_dropout["default"] = torch.nn.AlphaDropout(0.1)  # another kind than an adapter's settings make
    reason = "a layer is a peft.tuners.lora.layer.Linear that is more than a product and a plain update"
    assert reason_against(pretrained.model) == reason
    model = open_tiny("t5").model
    checkpoint_layers(model)
    assert reason_against(model) == "layers are computed again in the backward pass"

"""The self-check: which path is taken, what it refuses, and that it leaves everything as it was."""

from dataclasses import replace

import pytest
import torch
from model_reference import SMALL, decoder_loss
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, GraniteConfig, Llama4TextConfig

from llmft.config.schema import Adapter, AdapterKind
from llmft.data.batch import collate_decoder
from llmft.models import fused_linear, projection
from llmft.models.adapter import add_adapter
from llmft.models.flat import decoder
from llmft.models.forward import Path, plain_loss
from llmft.models.path_check import check_fast_path

DECODERS = ["llama", "qwen3", "gpt2"]

REFUSED = {
    "granite": (GraniteConfig(**SMALL, logits_scaling=8.0), "losses differ by"),
    "cohere": (CohereConfig(**SMALL, logit_scale=0.0625), "losses differ by"),
    "gemma2": (Gemma2Config(**SMALL, final_logit_softcapping=None, sliding_window=64), "attention with softcap"),
    "llama4": (Llama4TextConfig(**SMALL, attention_chunk_size=4096, num_local_experts=2), "layers of chunked_attention"),
    "gemma2 head": (Gemma2Config(**SMALL, attn_logit_softcapping=None, final_logit_softcapping=2.0), "losses differ by"),
}


@pytest.mark.parametrize(("config", "reason"), REFUSED.values(), ids=REFUSED)
def test_fast_path_is_refused_where_it_is_not_equal(documents, loud, config, reason):
    torch.manual_seed(0)
    model = loud(AutoModelForCausalLM.from_config(config)).train()
    batch = collate_decoder(documents)
    attention = model.config._attn_implementation
    found = check_fast_path(model, batch, torch.float32)
    assert not found.fast
    assert reason in found.reason
    assert model.training
    assert model.config._attn_implementation == attention
    model.eval()
    assert plain_loss(model, batch).item() == pytest.approx(decoder_loss(model, documents).item(), rel=1e-5)


@pytest.mark.parametrize("name", DECODERS)
def test_fast_path_is_taken_where_it_is_equal(open_tiny, documents, name):
    found = check_fast_path(open_tiny(name).model, collate_decoder(documents), torch.float32)
    assert found.path is (Path.ragged if name == "gpt2" else Path.flat)
    assert found.relative_difference < 1e-5
    assert found.gradient_difference < 1e-5


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize(("what", "times"), [("update", 1.3), ("gradient of A", 0.7)])
def test_a_wrong_update_of_a_fresh_adapter_is_seen(monkeypatch, open_tiny, documents, name, what, times):
    """Its B is zero, so that neither the update nor the gradient of A shows anything unless B is moved."""
    pretrained = open_tiny(name)
    add_adapter(pretrained, Adapter(name=AdapterKind.lora, r=4))
    model, batch = pretrained.model, collate_decoder(documents)
    before = {key: weight.detach().clone() for key, weight in pretrained.trained}
    right = check_fast_path(model, batch, torch.float32)
    assert right.path is (Path.ragged if name == "gpt2" else Path.flat)
    assert 0 < right.gradient_difference < 1e-5

    if what == "update":

        def wrong_update(layer):
            found = projection.projection_of(layer)
            return found and replace(found, update=found.update and found.update._replace(scale=times * found.update.scale))

        for module in (fused_linear, decoder):
            monkeypatch.setattr(module, "projection_of", wrong_update)
    else:
        known = projection.updates_backward

        def wrong_gradient(*given):
            dx_NI, found = known(*given)
            return dx_NI, [(None if da is None else times * da, db) for da, db in found]

        monkeypatch.setattr(projection, "updates_backward", wrong_gradient)
    found = check_fast_path(model, batch, torch.float32)
    assert not found.fast
    assert "differ by" in found.reason
    assert all(torch.equal(weight, before[key]) for key, weight in pretrained.trained)
    assert not any(weight.grad is not None and weight.grad.any() for _, weight in pretrained.trained)

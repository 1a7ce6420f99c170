"""The ragged forward pass against plain transformers, one document at a time: loss, gradients, and who sees whom."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from model_reference import SMALL, decoder_loss, farthest, gradients
from transformers import (
    AutoModelForCausalLM,
    MistralConfig,
    Qwen3Config,
)

from llmft.config.schema import Adapter, AdapterKind
from llmft.data.batch import collate_decoder, cut
from llmft.data.encode import Encoded
from llmft.data.prefixes import collate_shared
from llmft.models.adapter import add_adapter
from llmft.models.attention import checkpoint_layers, ragged
from llmft.models.flat.block import AttentionHalf, FeedForwardHalf
from llmft.models.flat.decoder import flat_states, layers_of
from llmft.models.forward import flat_loss, plain_loss, ragged_loss

DECODERS = ["llama", "qwen3", "gpt2"]
LORA = Adapter(name=AdapterKind.lora, r=4)


def open_for_training(open_tiny, name, lora):
    pretrained = open_tiny(name)
    if lora:
        torch.manual_seed(1)
        add_adapter(pretrained, LORA)
        for weight_name, weight in pretrained.trained:
            if "lora_B" in weight_name:  # zero at the start, which would hide every gradient of A
                torch.nn.init.normal_(weight, std=0.1)
        pretrained.model.eval()
    return pretrained


def flat(model, batch):
    """The loss of layers that are written out."""
    return flat_loss(model, batch, torch.float32)


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("name", DECODERS)
def test_loss_and_gradients_are_those_of_plain_transformers(open_tiny, documents, name, lora):
    pretrained = open_for_training(open_tiny, name, lora)
    model = pretrained.model
    expected_loss = decoder_loss(model, documents).item()
    expected = gradients(model, lambda: decoder_loss(model, documents))
    assert len(expected) == len(pretrained.trained)
    batch = collate_decoder(documents)
    for path in (*([] if name == "gpt2" else [flat]), ragged_loss, plain_loss):
        assert path(model, batch).item() == pytest.approx(expected_loss, rel=1e-5)
        assert farthest(gradients(model, lambda path=path: path(model, batch)), expected) <= 1e-5


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_what_documents_share_is_computed_once_with_the_same_result(open_tiny, documents, name, lora):
    model = open_for_training(open_tiny, name, lora).model
    context = np.arange(20, 60).astype(np.int32)
    asked = [
        replace(each, ids=np.concatenate([context, each.ids]), loss_mask=np.append(np.zeros(40, bool), each.loss_mask))
        for each in documents
    ]
    asked = [replace(each, units=int(each.loss_mask[1:].sum())) for each in asked]
    shared = collate_shared(asked)
    assert len(shared.stream.tokens_N) <= sum(map(len, asked)) - 39 * (len(asked) - 1)
    assert flat(model, shared).item() == pytest.approx(decoder_loss(model, asked).item(), rel=1e-5)
    found = gradients(model, lambda: flat(model, shared))
    assert farthest(found, gradients(model, lambda: decoder_loss(model, asked))) <= 1e-5


@pytest.mark.parametrize("name", DECODERS)
def test_micro_batches_change_nothing(open_tiny, documents, name):
    model = open_tiny(name).model
    parts = [collate_decoder(part) for part in cut(documents, 25)]
    assert len(parts) == 4
    whole = collate_decoder(documents)
    total = sum(ragged_loss(model, part).item() for part in parts)
    assert total == pytest.approx(ragged_loss(model, whole).item(), rel=1e-5)
    found = gradients(model, *(lambda part=part: ragged_loss(model, part) for part in parts))
    assert farthest(found, gradients(model, lambda: ragged_loss(model, whole))) <= 1e-5


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_passes_under_way_at_the_same_time_do_not_share_memory(open_tiny, documents, name):
    model = open_tiny(name).model
    parts = [collate_decoder(part) for part in cut([each for each in documents if each.units], 25)]
    assert len(parts) > 1
    expected = gradients(model, *(lambda part=part: flat(model, part) for part in parts))
    losses = [flat(model, part) for part in parts]
    assert farthest(gradients(model, *(lambda loss=loss: loss for loss in reversed(losses))), expected) <= 1e-5


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_flat_documents_do_not_see_each_other(open_tiny, documents, name):
    model = open_tiny(name).model

    def states(items):
        batch = collate_decoder(items)
        counts = [int(item.loss_mask[1:].sum()) for item in items]
        with torch.no_grad():
            return flat_states(model, layers_of(model), batch, torch.float32).split(counts)

    before = states(documents)
    other = replace(documents[1], ids=documents[1].ids[::-1].copy())
    after = states([documents[0], other, *documents[2:]])
    same = [torch.equal(one, two) for one, two in zip(before, after, strict=True)]
    assert same == [place != 1 for place in range(len(documents))]


@pytest.mark.parametrize("name", DECODERS)
def test_documents_do_not_see_each_other(open_tiny, documents, name):
    model = open_tiny(name).model

    def states(items):
        stream = collate_decoder(items).stream
        with ragged(model), torch.no_grad():
            return (
                model.base_model(
                    input_ids=stream.tokens_N[None],
                    position_ids=stream.positions_N[None],
                    use_cache=False,
                    document_lengths=stream.lengths,
                )
                .last_hidden_state[0]
                .split(stream.lengths)
            )

    before = states(documents)
    for changed in (0, 4):
        other = replace(documents[changed], ids=documents[changed].ids[::-1].copy())
        after = states([*documents[:changed], other, *documents[changed + 1 :]])
        same = [torch.equal(one, two) for one, two in zip(before, after, strict=True)]
        assert same == [place != changed for place in range(len(documents))]


PATHS = {"flat": flat, "ragged": ragged_loss, "plain": plain_loss}


@pytest.mark.parametrize("lora", [False, True], ids=["all weights", "lora and the last norm"])
def test_bf16_with_and_without_gradients(open_tiny, documents, lora):
    """Weights that are trained are float32; what they give goes on in bf16, also into the vocabulary."""
    pretrained = open_tiny("qwen3")
    model, batch = pretrained.model, collate_decoder(documents)
    expected = flat(model, batch).item()
    if lora:
        model.bfloat16()
        add_adapter(pretrained, Adapter(name=AdapterKind.lora, r=2, modules_to_save=["norm"]))
        model.eval()
    assert flat_states(model, layers_of(model), batch, torch.bfloat16).dtype is torch.bfloat16
    found = flat_loss(model, batch, torch.bfloat16)
    found.backward()
    with torch.no_grad():
        assert flat_loss(model, batch, torch.bfloat16).item() == pytest.approx(found.item(), rel=1e-6)
    assert found.item() == pytest.approx(expected, rel=2e-2)


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_layers_computed_again_drop_what_they_dropped(open_tiny, documents, name):
    pretrained = open_tiny(name)
    add_adapter(pretrained, Adapter(name=AdapterKind.lora, r=4, dropout=0.3))
    for weight_name, weight in pretrained.trained:
        if "lora_B" in weight_name:
            torch.nn.init.normal_(weight, std=0.1)
    model, batch = pretrained.model.train(), collate_decoder(documents)

    def drawn(seed):
        torch.manual_seed(seed)
        return gradients(model, lambda: flat(model, batch))

    once, other = drawn(3), drawn(4)
    assert farthest(other, once) > 1e-2
    checkpoint_layers(model)
    assert farthest(drawn(3), once) <= 1e-6


@pytest.mark.parametrize(
    ("name", "path"),
    [
        pytest.param(name, PATHS[path], id=f"{name}-{path}")
        for name in DECODERS
        for path in PATHS
        if (name, path) != ("gpt2", "flat")
    ],
)
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_gradient_checkpointing_changes_no_gradient(monkeypatch, open_tiny, documents, name, lora, path):
    model = open_for_training(open_tiny, name, lora).model
    batch = collate_decoder(documents)
    without = gradients(model, lambda: path(model, batch))
    calls = []
    halves = [AttentionHalf.forward, FeedForwardHalf.forward]
    for half, forward in zip((AttentionHalf, FeedForwardHalf), halves, strict=True):
        monkeypatch.setattr(half, "forward", lambda *given, forward=forward: calls.append("half") or forward(*given))
    layers = model.base_model.h if name == "gpt2" else model.base_model.layers
    layers[0].register_forward_pre_hook(lambda *_: calls.append("forward"))
    norm = layers[0].ln_1 if name == "gpt2" else layers[0].input_layernorm
    norm.register_forward_pre_hook(lambda *_: calls.append("norm"))
    checkpoint_layers(model)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.train()  # layers are computed again in training only
    attention = model.config._attn_implementation
    assert farthest(gradients(model, lambda: path(model, batch)), without) <= 1e-6
    if path is flat:  # two halves of each of two layers, in the forward pass and again in the backward pass
        assert calls == ["half"] * 8
        return
    passes = 1 if path is ragged_loss else len(documents)
    assert (calls.count("forward"), calls.count("norm")) == (passes, 2 * passes)
    assert model.config._attn_implementation == attention


@pytest.mark.parametrize(
    "config",
    [
        MistralConfig(**SMALL, sliding_window=4),
        Qwen3Config(**SMALL, use_sliding_window=True, sliding_window=4, max_window_layers=1),
    ],
    ids=["mistral: all layers", "qwen3: one of two layers"],
)
def test_sliding_window(documents, loud, config):
    torch.manual_seed(0)
    model = loud(AutoModelForCausalLM.from_config(config))
    batch = collate_decoder(documents)
    expected = decoder_loss(model, documents)
    for path in (flat, ragged_loss):
        assert path(model, batch).item() == pytest.approx(expected.item(), rel=1e-5)
        found = gradients(model, lambda path=path: path(model, batch))
        assert farthest(found, gradients(model, lambda: decoder_loss(model, documents))) <= 1e-5
    config.sliding_window = None  # the window matters on these documents
    config.layer_types = ["full_attention", "full_attention"]
    wide = AutoModelForCausalLM.from_config(config)
    wide.load_state_dict(model.state_dict())
    assert abs(decoder_loss(wide.eval(), documents).item() / expected.item() - 1) > 1e-3


def test_a_document_without_loss_counts_nothing(open_tiny, documents):
    model = open_tiny("llama").model
    silent = Encoded("s", documents[0].ids, np.zeros(len(documents[0]), bool), None, "f:1", units=0)
    whole = [documents[1], silent, documents[5]]
    assert ragged_loss(model, collate_decoder(whole)).item() == pytest.approx(
        decoder_loss(model, [documents[1], documents[5]]).item(), rel=1e-5
    )

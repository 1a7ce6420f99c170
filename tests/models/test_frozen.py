"""Frozen layers: what stays as it is, losses and gradients with and without kept states, and a file that fails."""

import os
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from model_reference import gradients
from transformers import XLMConfig, XLMModel

from llmft.config.schema import Adapter, AdapterKind
from llmft.data.batch import collate_decoder, collate_pair
from llmft.data.encode import Encoded
from llmft.errors import ConfigError
from llmft.models.adapter import add_adapter
from llmft.models.flat import decoder
from llmft.models.flat.decoder import below
from llmft.models.forward import flat_loss, plain_loss, ragged_loss
from llmft.models.frozen import Frozen, States, freeze, key_of
from llmft.models.head import Head
from llmft.models.padded import pair_loss, span_logits
from llmft.models.ragged import encoder
from llmft.models.ragged.encoder import encoding
from llmft.models.ragged.pair import flat_pair_loss

PLENTY = 0  # bytes of the disk that stay free


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        # a key's bias has none but what is rounded
        assert (found[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-6 * max(
            each.norm() for each in expected.values()
        ), name


# which of a tiny model's weights (two layers a stack) are trained when the lowest layer is frozen
STILL = {
    "llama": {"model.layers.1.*", "model.norm.weight", "lm_head.weight"},
    "gpt2": {"transformer.h.1.*", "transformer.ln_f.*"},  # the output layer is the embedding
    "t5": {"encoder.block.1.*", "encoder.final_layer_norm.weight", "decoder.*"},
    "bart": {"model.encoder.layers.1.*", "model.decoder.*"},
}


@pytest.mark.parametrize("name", STILL)
def test_the_lowest_layers_and_the_embeddings_stay_as_they_are(open_tiny, name):
    model = open_tiny(name).model
    fixed = freeze(model, 1)
    trained = {key for key, weight in model.named_parameters() if weight.requires_grad}
    allowed = tuple(pattern.rstrip("*") for pattern in STILL[name])
    assert all(key.startswith(allowed) for key in trained)
    assert all(any(key.startswith(each) for key in trained) for each in allowed if "lm_head" not in each)
    still = {key for key, _ in model.named_parameters()} - trained
    assert still
    # the decoder's own positions, norms and layers are trained; what it shares with the encoder is not
    assert not any(key.startswith(("decoder.block", "model.decoder.layers")) for key in still)
    assert all(
        key.rpartition(".")[0] in fixed or model.get_parameter(key) is model.get_input_embeddings().weight for key in still
    )


def test_what_is_frozen_drops_nothing_at_random(open_tiny):
    model = open_tiny("bert", Head.label, ("a", "b")).model
    freeze(model, 1)
    model.train()
    base = model.base_model
    assert not any(module.training for part in (base.embeddings, base.encoder.layer[0]) for module in part.modules())
    assert all(module.training for module in base.encoder.layer[1].modules())
    model.eval()
    assert not base.encoder.layer[1].training


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_more_layers_than_there_are(open_tiny, name):
    with pytest.raises(ConfigError, match=r"adapter\.frozen_layers=3: .* has 2 layers.*Set it lower"):
        freeze(open_tiny(name).model, 3)


def test_frozen_layers_get_no_adapter(open_tiny):
    pretrained = open_tiny("llama")
    add_adapter(pretrained, Adapter(name=AdapterKind.lora, r=2), freeze(pretrained.model, 1))
    assert pretrained.trained
    assert all(".layers.1." in name for name, _ in pretrained.trained)
    assert not any("layers.0." in name and "lora" in name for name, _ in pretrained.model.named_parameters())
    pretrained = open_tiny("llama")
    every = Adapter(name=AdapterKind.lora, r=2, frozen_layers=2)
    with pytest.raises(ConfigError, match=r"adapter\.frozen_layers=2 leaves no others; set it lower, or adapter=none"):
        add_adapter(pretrained, every, freeze(pretrained.model, 2))


@pytest.mark.parametrize(
    ("name", "saved", "caught"),
    [
        ("llama", "embed_tokens", "model.embed_tokens"),
        ("llama", "norm", "model.layers.0.input_layernorm"),  # by the end of a name, as PEFT takes it
        ("t5", "encoder", "encoder.embed_tokens"),
    ],
)
def test_what_is_frozen_is_not_trained_in_full(open_tiny, name, saved, caught):
    pretrained = open_tiny(name)
    adapter = Adapter(name=AdapterKind.lora, r=2, modules_to_save=[saved], frozen_layers=1)
    with pytest.raises(ConfigError, match=rf"{caught}.* would be trained, and adapter\.frozen_layers=1 keeps it as it is"):
        add_adapter(pretrained, adapter, freeze(pretrained.model, 1))


def test_an_output_layer_that_is_the_embedding_is_not_trained_in_full(open_tiny):
    pretrained = open_tiny("llama")
    assert pretrained.model.lm_head.weight is pretrained.model.model.embed_tokens.weight
    adapter = Adapter(name=AdapterKind.lora, r=2, modules_to_save=["lm_head"], frozen_layers=1)
    with pytest.raises(ConfigError, match=r"model\.embed_tokens would be trained"):
        add_adapter(pretrained, adapter, freeze(pretrained.model, 1))


def test_layers_in_several_lists_cannot_be_counted():
    model = XLMModel(XLMConfig(vocab_size=90, emb_dim=16, n_layers=3, n_heads=2))
    with pytest.raises(ConfigError, match=r"adapter\.frozen_layers=1: xlm has no layers that can be counted"):
        freeze(model, 1)


# with two layers frozen nothing is left that an adapter could stand beside
@pytest.mark.parametrize(("count", "lora"), [(1, False), (2, False), (1, True)])
@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_decoders(open_tiny, documents, tmp_path, monkeypatch, name, count, lora):
    pretrained = open_tiny(name)
    model, fixed = pretrained.model, freeze(pretrained.model, count)
    if lora:
        add_adapter(pretrained, Adapter(name=AdapterKind.lora, r=2), fixed)
        for weight_name, weight in pretrained.trained:
            if "lora_B" in weight_name:  # zero at the start, which would hide every gradient of A
                torch.nn.init.normal_(weight, std=0.1)
        model.eval()
    batch = collate_decoder(documents)
    expected = plain_loss(model, batch)
    wanted = gradients(model, expected)
    assert wanted
    calls = []
    monkeypatch.setattr(decoder, "below", lambda *given: calls.append(given[2].lengths) or below(*given))
    kept = Frozen(count, States(tmp_path, model.config.hidden_size, torch.float32, PLENTY))
    first = flat_loss(model, batch, torch.float32, kept)
    assert calls == [(len(document),) for document in documents]  # each alone, so that its states are its own
    again = flat_loss(model, batch, torch.float32, kept)
    assert len(calls) == len(documents) == len(kept.states)
    assert again.item() == first.item()
    for loss in (again, flat_loss(model, batch, torch.float32, Frozen(count)), ragged_loss(model, batch)):
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        assert_same(gradients(model, loss), wanted)
    other = collate_decoder(documents[::-1][:3])
    assert flat_loss(model, other, torch.float32, kept).item() == pytest.approx(plain_loss(model, other).item(), rel=1e-5)


@pytest.mark.parametrize("count", [1, 2])
def test_encoders(open_tiny, tmp_path, monkeypatch, count):
    model = open_tiny("bert", Head.span).model
    freeze(model, count)
    ids = torch.from_numpy(np.random.default_rng(0).integers(5, 80, (3, 9)))
    mask = (torch.arange(9) < torch.tensor([9, 4, 7])[:, None]).long()
    types = (torch.arange(9) >= 2).long() * mask
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}

    def loss(read):
        starts, ends = span_logits(model, read)
        shown = read["attention_mask"].bool()
        return (starts[shown] * torch.linspace(-1, 2, int(shown.sum()))).sum() + ends[shown].square().sum()

    expected = loss(inputs)
    wanted = gradients(model, expected)
    calls, run = [], encoder.run
    monkeypatch.setattr(encoder, "run", lambda *given, **named: calls.append(len(given[0])) or run(*given, **named))
    kept = Frozen(count, States(tmp_path, model.config.hidden_size, torch.float32, PLENTY))
    for form, below_calls in ((kept, 3), (kept, 0), (Frozen(count), 1)):
        calls.clear()
        with encoding(model, inputs, torch.float32, flat=True, frozen=form):
            found = loss(inputs)
        assert len(calls) == below_calls + 1  # and the layers above
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)
        assert_same(gradients(model, found), wanted)
    changed = inputs | {"token_type_ids": mask - types}  # other words are read as the second text: another document
    with encoding(model, changed, torch.float32, flat=True, frozen=kept):
        assert loss(changed).item() == pytest.approx(loss_alone(model, changed, loss), rel=1e-5)
    assert len(kept.states) == 6


def loss_alone(model, inputs, loss):
    with torch.no_grad():
        return loss(inputs).item()


def test_first_words_alone_are_read_where_all_layers_are_frozen(open_tiny):
    model = open_tiny("bert", Head.label, ("a", "b", "c")).model
    freeze(model, 2)
    inputs = {"input_ids": torch.arange(5, 17).view(2, 6), "attention_mask": torch.ones(2, 6, dtype=torch.long)}
    expected = model(**inputs).logits
    with encoding(model, inputs, torch.float32, True, torch.tensor([0, 6]), Frozen(2)):
        torch.testing.assert_close(model(**inputs).logits, expected)


@pytest.mark.parametrize("name", ["t5", "bart", "marian"])
@pytest.mark.parametrize("count", [1, 2])
def test_encoder_decoders(open_tiny, name, count):
    model = open_tiny(name).model.double()
    freeze(model, count)
    random = np.random.default_rng(0)
    ids = [random.integers(4, 80, size).astype(np.int32) for size in (9, 4, 3, 7)]
    pairs = [
        Encoded(str(place), ids[place], np.ones(len(ids[place]), np.bool_), ids[place + 2], "f", len(ids[place]))
        for place in (0, 1)
    ]
    batch = collate_pair(pairs, model.config.decoder_start_token_id)
    expected = pair_loss(model, batch)
    wanted = gradients(model, expected)
    found = flat_pair_loss(model, batch, torch.float64, Frozen(count))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert_same(gradients(model, found), wanted)


def states_of(tmp_path, dtype=torch.float32):
    return States(tmp_path, 4, dtype, PLENTY)


def counted(rows):
    """What computes a document's states, and how often it was asked for each."""
    asked = []
    return asked, lambda place: asked.append(place) or rows[place]


ROWS = [torch.arange(12.0).view(3, 4), torch.full((1, 4), -1.5), torch.arange(8.0).view(2, 4) ** 3]
KEYS = [key_of(np.array([place])) for place in range(3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_states_are_those_that_were_computed(tmp_path, dtype):
    rows = [each.to(dtype) for each in ROWS]
    states = states_of(tmp_path, dtype=dtype)
    asked, compute = counted(rows)
    for places in ([0, 1], [1, 0, 2], [2, 2, 1]):
        chosen = partial(lambda places, at: compute(places[at]), places)
        found = states.of([KEYS[place] for place in places], [len(rows[place]) for place in places], chosen)
        assert found.equal(torch.cat([rows[place] for place in places]))
    assert asked == [0, 1, 2]
    assert not list(tmp_path.iterdir())  # it has no name


def test_what_finds_no_room_is_computed_each_time(tmp_path, monkeypatch):
    free = iter([48 + 9, 8])  # bytes: enough for the first, of 48
    monkeypatch.setattr(os, "fstatvfs", lambda _: SimpleNamespace(f_bavail=next(free), f_frsize=1))
    states = States(tmp_path, 4, torch.float32, spare=9)
    asked, compute = counted(ROWS)
    for _ in range(2):
        assert states.of(KEYS, [3, 1, 2], compute).equal(torch.cat(ROWS))
    assert asked == [0, 1, 2, 1, 2]


@pytest.mark.parametrize("call", ["pwritev", "preadv"])
@pytest.mark.parametrize("how", ["fails", "falls short"])
def test_a_disk_that_fails_changes_nothing(tmp_path, monkeypatch, call, how):
    states = states_of(tmp_path)
    asked, compute = counted(ROWS)
    real = getattr(os, call)

    def faulty(fd, buffers, offset):
        if how == "falls short":  # some bytes now, the others when asked again
            return real(fd, [buffers[0][:5]], offset)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, call, faulty)
    for _ in range(3):
        assert states.of(KEYS, [3, 1, 2], compute).equal(torch.cat(ROWS))
    assert len(asked) == (3 if how == "falls short" else 9)


def test_a_file_that_was_cut_is_not_believed(tmp_path):
    states = states_of(tmp_path)
    asked, compute = counted(ROWS)
    states.of(KEYS, [3, 1, 2], compute)
    os.ftruncate(states._file.fileno(), 20)
    assert states.of(KEYS, [3, 1, 2], compute).equal(torch.cat(ROWS))
    assert asked == [0, 1, 2, 0, 1, 2]

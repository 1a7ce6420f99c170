"""Padded forward passes against transformers' own, one document at a time."""

from dataclasses import replace

import model_reference
import numpy as np
import pytest
import torch
from model_reference import farthest, gradients
from transformers import AutoModelForSeq2SeqLM, LEDConfig, MT5Config, PegasusConfig, UMT5Config

from llmft.config.schema import Adapter, AdapterKind
from llmft.data.batch import collate_pair
from llmft.data.encode import Encoded
from llmft.hardware.precision import autocast
from llmft.models import loss
from llmft.models.adapter import add_adapter
from llmft.models.attention import checkpoint_layers
from llmft.models.family import Family
from llmft.models.load import Head, load_pretrained
from llmft.models.padded import label_logits, masked_loss, pad, pair_loss, span_logits

PAIRS = ["t5", "bart", "marian", "mbart", "m2m100"]
CPU = torch.device("cpu")


def batch_of(model, items):
    return collate_pair(items, model.config.decoder_start_token_id)


@pytest.mark.parametrize("chunk", [1024, 8], ids=["at once", "in chunks"])
@pytest.mark.parametrize("name", PAIRS)
def test_loss_and_gradients_are_those_of_plain_transformers(open_tiny, pairs, monkeypatch, name, chunk):
    monkeypatch.setattr(loss, "CHUNK_ROWS", chunk)
    model = open_tiny(name).model.double()  # weights as loud as these blow rounding up
    for buffer_name, buffer in model.named_buffers():
        if buffer_name == "final_logits_bias":  # zero in most folders, which would hide that it is left out
            buffer.normal_()
    batch = batch_of(model, pairs)
    expected = sum(model_reference.pair_loss(model, item) for item in pairs)
    wanted = gradients(model, expected)
    found = pair_loss(model, batch)
    assert found.dtype is torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert farthest(gradients(model, found), wanted, floor=1e-3) <= 1e-5


@pytest.mark.parametrize("name", PAIRS)
def test_a_document_does_not_depend_on_its_batch(open_tiny, pairs, name):
    model = open_tiny(name).model
    with torch.no_grad():
        alone = [pair_loss(model, batch_of(model, [item])).item() for item in pairs]
        for items in (pairs, pairs[::-1], pairs[:3]):
            assert pair_loss(model, batch_of(model, items)).item() == pytest.approx(
                sum(alone[int(item.id)] for item in items), rel=1e-5
            )
        # each one's share of a batch, told by leaving the others without loss
        for place, item in enumerate(pairs):
            silent = [replace(other, loss_mask=np.zeros(len(other.ids), bool)) for other in pairs]
            silent[place] = item
            assert pair_loss(model, batch_of(model, silent)).item() == pytest.approx(alone[place], rel=1e-5, abs=1e-5)


def test_what_was_read_matters(open_tiny, pairs):
    """The loud weights of the other tests would prove nothing if the decoder paid no heed to the source."""
    for name in PAIRS:
        model = open_tiny(name).model
        other = [replace(item, source_ids=item.source_ids[::-1] + 1) for item in pairs]
        with torch.no_grad():
            one, two = (pair_loss(model, batch_of(model, items)).item() for items in (pairs, other))
        assert abs(one / two - 1) > 5e-4, name


SIZES = {"vocab_size": 90, "d_model": 32, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
STACKS = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
STACKS |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
OTHERS = {
    "t5 v1.1, no scaling": MT5Config(**SIZES, d_kv=8, d_ff=32, num_layers=1, num_heads=2, tie_word_embeddings=False),
    "umt5": UMT5Config(**SIZES, d_kv=8, d_ff=32, num_layers=1, num_heads=2),
    "pegasus": PegasusConfig(**SIZES, **STACKS),
    "led, not known": LEDConfig(**SIZES, **STACKS, attention_window=[4]),
}


@pytest.mark.parametrize("config", OTHERS.values(), ids=OTHERS)
def test_other_architectures(loud, pairs, monkeypatch, config):
    monkeypatch.setattr(loss, "CHUNK_ROWS", 8)
    torch.manual_seed(0)
    model = loud(AutoModelForSeq2SeqLM.from_config(config))
    with torch.no_grad():
        expected = sum(model_reference.pair_loss(model, item) for item in pairs).item()
        assert pair_loss(model, batch_of(model, pairs)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("name", PAIRS)
def test_gradient_checkpointing_changes_no_gradient(open_tiny, pairs, name, lora):
    pretrained = open_tiny(name)
    model = pretrained.model.double()
    if lora:
        add_adapter(pretrained, Adapter(name=AdapterKind.lora, r=2))
        for key, weight in pretrained.trained:
            torch.nn.init.normal_(weight, std=0.1)
            assert "lora" in key
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for part in ("dropout", "activation_dropout", "attention_dropout", "layerdrop"):
            if isinstance(getattr(module, part, None), float):
                setattr(module, part, 0.0)
    model.train()
    batch = batch_of(model, pairs)
    without = gradients(model, pair_loss(model, batch))
    layer = (model.decoder.block if name == "t5" else model.model.decoder.layers)[0]
    calls = []
    part = layer.layer[0].SelfAttention.q if name == "t5" else layer.self_attn.q_proj
    part.register_forward_hook(lambda *_: calls.append(1))
    checkpoint_layers(model)
    assert farthest(gradients(model, pair_loss(model, batch)), without, floor=1e-3) <= 1e-5
    assert len(calls) == 2  # once forward, once again on the way back


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_t5_in_bf16_stands_what_fp16_does_not(tiny, pairs, dtype):
    """T5's feed-forward activations exceed 65,504, the largest float16: they would be infinite and the loss not a number."""
    model = load_pretrained(tiny / "t5", dtype, CPU).model.eval()
    largest = []
    with torch.no_grad():
        for block in model.encoder.block:
            block.layer[1].DenseReluDense.wi.weight.mul_(1e4)
            block.layer[1].DenseReluDense.wo.weight.mul_(1e3)
            block.layer[1].DenseReluDense.wo.register_forward_hook(lambda *given: largest.append(given[2].abs().max().item()))
    with autocast(CPU, torch.bfloat16):
        found = pair_loss(model, batch_of(model, pairs))
    assert max(largest) > 65_504
    assert found.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients(model, found).values())


DOCUMENTS = [(9, 4), (3, 0), (14, 6), (1, 0), (9, 8)]  # length, and where the second text begins


@pytest.fixture
def texts():
    random = np.random.default_rng(3)
    return [
        Encoded(str(number), random.integers(5, 80, size).astype(np.int32), np.zeros(size, bool), None, "f", 1, second=second)
        for number, (size, second) in enumerate(DOCUMENTS)
    ]


def test_pad_by_hand(tiny, texts):
    model = load_pretrained(tiny / "bert", torch.float32, CPU, Head.span).model
    inputs = pad(texts[:2], 0, CPU, model)
    assert inputs["input_ids"].tolist() == [texts[0].ids.tolist(), [*texts[1].ids.tolist(), 0, 0, 0, 0, 0, 0]]
    assert inputs["attention_mask"].tolist() == [[1] * 9, [1, 1, 1, 0, 0, 0, 0, 0, 0]]
    assert inputs["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1, 1, 1], [0] * 9]
    for name in ("roberta", "gpt2"):  # one token type; types that are words
        head = Head.label
        other = load_pretrained(tiny / name, torch.float32, CPU, head, ("a", "b"), "single_label_classification").model
        assert set(pad(texts, 0, CPU, other)) == {"input_ids", "attention_mask"}


def alone(model, item, reads_types):
    ids = torch.from_numpy(item.ids.astype(np.int64))[None]
    types = {"token_type_ids": (torch.arange(ids.shape[1]) >= (item.second or 99))[None].long()} if reads_types else {}
    return model(input_ids=ids, **types)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_spans(open_tiny, texts, name):
    model = open_tiny(name, Head.span).model
    with torch.no_grad():
        start, end = span_logits(model, pad(texts, 0, CPU, model))
        for row, item in enumerate(texts):
            found = alone(model, item, name == "bert")
            torch.testing.assert_close(start[row, : len(item.ids)], found.start_logits[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(end[row, : len(item.ids)], found.end_logits[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_labels_of_encoders(open_tiny, texts, name):
    model = open_tiny(name, Head.label, ("a", "b", "c")).model
    with torch.no_grad():
        found = label_logits(model, Family.encoder, pad(texts, 0, CPU, model))
        expected = torch.cat([alone(model, item, name == "bert").logits for item in texts])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3"])
def test_labels_of_decoders_are_asked_at_the_last_token(open_tiny, texts, name):
    """By length: the end token is the pad token and stands inside a text too, and the configuration names no pad."""
    model = open_tiny(name, Head.label, ("a", "b", "c")).model
    model.config.pad_token_id = None
    end = 2
    texts[2].ids[[5, 13]] = end
    with torch.no_grad():
        found = label_logits(model, Family.decoder, pad(texts, end, CPU, model))
        for row, item in enumerate(texts):
            ids = torch.from_numpy(item.ids.astype(np.int64))[None]
            states = model.base_model(ids).last_hidden_state[0, -1]
            torch.testing.assert_close(found[row], model.score(states), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["t5", "bart", "mbart"])
def test_labels_of_encoder_decoders(open_tiny, texts, name):
    model = open_tiny(name, Head.label, ("a", "b", "c")).model.double()
    end = model.config.eos_token_id
    ended = [replace(item, ids=np.append(item.ids, end).astype(np.int32)) for item in texts]
    twice = [*ended, replace(ended[0], ids=np.insert(ended[0].ids, 3, end))]  # a text that holds the end token itself
    for items in (ended, twice):
        with torch.no_grad():
            found = label_logits(model, Family.encoder_decoder, pad(items, model.config.pad_token_id, CPU, model))
            expected = torch.cat([model(torch.from_numpy(item.ids.astype(np.int64))[None]).logits for item in items])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_masked_words(open_tiny, texts, name):
    model = open_tiny(name, Head.masked).model
    inputs = pad(texts, 0, CPU, model)
    places = [(0, 2), (0, 8), (2, 0), (4, 5)]
    width = inputs["input_ids"].shape[1]
    targets = torch.tensor([7, 9, 11, 13])
    found = masked_loss(model, inputs, torch.tensor([row * width + column for row, column in places]), targets)
    expected = torch.zeros(())
    for (row, column), target in zip(places, targets, strict=True):
        logits = alone(model, texts[row], name == "bert").logits[0, column]
        expected = expected - logits.log_softmax(-1)[target]
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert farthest(gradients(model, found), gradients(model, expected), floor=1e-3) <= 1e-4

"""Attention against softmax(QK^T/sqrt(d))V written out: llmft's own over ragged batches, and that of each family of models."""

import math

import pytest
import torch
from transformers.models.t5.modeling_t5 import T5Attention

from llmft.models.attention import UnsupportedAttention, ragged_attention
from llmft.models.load import Head

LENGTHS = (5, 1, 8)


def tensors(num_heads, num_key_heads, width=4):
    torch.manual_seed(0)
    size = sum(LENGTHS)
    query = torch.randn(1, num_heads, size, width, dtype=torch.float64)
    key, value = (torch.randn(1, num_key_heads, size, width, dtype=torch.float64) for _ in range(2))
    return query, key, value


def by_hand(query, key, value, scaling, sees):
    """One row at a time: which keys token i of a document sees is `sees(i, j)`."""
    out = torch.zeros(1, query.shape[2], query.shape[1], query.shape[3], dtype=torch.float64)
    group = query.shape[1] // key.shape[1]
    start = 0
    for length in LENGTHS:
        for head in range(query.shape[1]):
            for i in range(length):
                seen = [start + j for j in range(length) if sees(i, j)]
                scores = key[0, head // group, seen] @ query[0, head, start + i] * scaling
                weights = scores.exp() / scores.exp().sum()
                out[0, start + i, head] = weights @ value[0, head // group, seen]
        start += length
    return out


CASES = {
    "causal": ({}, lambda i, j: j <= i),
    "both ways": ({"is_causal": False}, lambda i, j: True),
    "window of 3": ({"sliding_window": 3}, lambda i, j: i - 3 < j <= i),
    "window of 3, both ways": ({"sliding_window": 3, "is_causal": False}, lambda i, j: abs(i - j) < 3),
    "window as long as the longest": ({"sliding_window": 8}, lambda i, j: j <= i),
}


@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1)], ids=["all heads", "grouped", "one key head"])
@pytest.mark.parametrize(("options", "sees"), CASES.values(), ids=CASES)
def test_is_the_formula(options, sees, heads, scaling):
    query, key, value = tensors(*heads)
    module = torch.nn.Module()
    found, _ = ragged_attention(module, query, key, value, None, document_lengths=LENGTHS, scaling=scaling, **options)
    expected = by_hand(query, key, value, 4**-0.5 if scaling is None else scaling, sees)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_module_says_whether_it_is_causal():
    query, key, value = tensors(2, 2)
    module = torch.nn.Module()
    module.is_causal = False
    found, _ = ragged_attention(module, query, key, value, None, document_lengths=LENGTHS)
    torch.testing.assert_close(found, by_hand(query, key, value, 0.5, lambda i, j: True))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "document lengths did not reach"),
        ({"document_lengths": (5, 1)}, "document lengths did not reach"),
        ({"document_lengths": LENGTHS, "softcap": 50.0}, "attention with softcap"),
        ({"document_lengths": LENGTHS, "s_aux": torch.zeros(2)}, "attention with s_aux"),
    ],
)
def test_refuses_what_it_does_not_compute(options, reason):
    with pytest.raises(UnsupportedAttention, match=reason):
        ragged_attention(torch.nn.Module(), *tensors(2, 2), None, **options)
    mask = torch.ones(1, 1, 14, 14)
    with pytest.raises(UnsupportedAttention):
        ragged_attention(torch.nn.Module(), *tensors(2, 2), mask, document_lengths=LENGTHS)


def test_dropout_is_applied():
    query, key, value = tensors(2, 2)
    found, _ = ragged_attention(
        torch.nn.Module(), query, key, torch.ones_like(value), None, document_lengths=LENGTHS, dropout=0.5
    )
    assert not torch.allclose(found, torch.ones_like(found))  # without it every average of ones is one


HEADS, WIDTH = 4, 8  # of the tiny models
MASK = torch.tensor([[1] * 9, [1] * 5 + [0] * 4])
ANSWER_MASK = torch.ones(2, 4, dtype=torch.int64)


def seen_by(model, module, **inputs):
    """Run the model and return what went into one of its attention modules and what came out, by name."""
    seen = {}

    def keep(_, args, kwargs, found):
        seen["input"] = args[0] if args else kwargs["hidden_states"]
        seen["read"] = kwargs.get("key_value_states", args[1] if len(args) > 1 and args[1] is not None else None)
        seen["output"] = found[0] if isinstance(found, tuple) else found

    handle = module.register_forward_hook(keep, with_kwargs=True)
    with torch.no_grad():
        model(**inputs, use_cache=False) if model.config.model_type != "bert" else model(**inputs)
    handle.remove()
    return seen


def split(states):
    """(T, heads x width) -> (heads, T, width)."""
    return states.view(len(states), HEADS, WIDTH).transpose(0, 1)


def formula(query_TD, key_SD, value_SD, sees, scale=WIDTH**-0.5, bias=None):
    """softmax(QK^T x scale + bias)V of one document, head by head and row by row."""
    query, key, value = split(query_TD), split(key_SD), split(value_SD)
    out = torch.zeros_like(query)
    for head in range(HEADS):
        for i in range(query.shape[1]):
            seen = [j for j in range(key.shape[1]) if sees(i, j)]
            scores = torch.stack(
                [query[head, i] @ key[head, j] * scale + (0 if bias is None else bias(head, i, j)) for j in seen]
            )
            weights = scores.exp() / scores.exp().sum()
            out[head, i] = sum(weight * value[head, j] for weight, j in zip(weights, seen, strict=True))
    return out.transpose(0, 1).reshape(len(query_TD), -1)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def ids_like(mask, least=5):
    torch.manual_seed(4)
    return torch.randint(least, 80, mask.shape)


def test_decoder(open_tiny):
    """GPT-2: a token sees itself and what came before it."""
    model = open_tiny("gpt2").model.double()
    module = model.transformer.h[1].attn
    seen = seen_by(model, module, input_ids=ids_like(MASK), attention_mask=MASK)
    for row, length in enumerate(MASK.sum(1)):
        query, key, value = module.c_attn(seen["input"][row, :length]).split(HEADS * WIDTH, dim=-1)
        close(seen["output"][row, :length], module.c_proj(formula(query, key, value, lambda i, j: j <= i)))


def test_encoder(open_tiny):
    """BERT: a token sees all of its own document, and no padding."""
    model = open_tiny("bert", Head.masked).model.double()
    module = model.bert.encoder.layer[1].attention.self
    seen = seen_by(model, module, input_ids=ids_like(MASK), attention_mask=MASK)
    for row, length in enumerate(MASK.sum(1)):
        states = seen["input"][row, :length]
        expected = formula(module.query(states), module.key(states), module.value(states), lambda i, j: True)
        close(seen["output"][row, :length], expected)


def paired(model, part):
    inputs = {"input_ids": ids_like(MASK), "attention_mask": MASK}
    inputs |= {"decoder_input_ids": ids_like(ANSWER_MASK), "decoder_attention_mask": ANSWER_MASK}
    return seen_by(model, part, **inputs)


@pytest.mark.parametrize("name", ["bart", "marian", "mbart", "m2m100"])
def test_cross_attention(open_tiny, name):
    """Each token of the answer sees the whole source, and none of its padding."""
    model = open_tiny(name).model.double()
    module = model.model.decoder.layers[1].encoder_attn
    seen = paired(model, module)
    for row, length in enumerate(MASK.sum(1)):
        read = seen["read"][row, :length]
        query = module.q_proj(seen["input"][row])
        expected = formula(query, module.k_proj(read), module.v_proj(read), lambda i, j: True)
        close(seen["output"][row], module.out_proj(expected))


@pytest.mark.parametrize("name", ["bart", "marian"])
def test_decoder_of_an_encoder_decoder(open_tiny, name):
    model = open_tiny(name).model.double()
    module = model.model.decoder.layers[1].self_attn
    seen = paired(model, module)
    for row in range(len(MASK)):
        states = seen["input"][row]
        expected = formula(module.q_proj(states), module.k_proj(states), module.v_proj(states), lambda i, j: j <= i)
        close(seen["output"][row], module.out_proj(expected))


def bucket(distance, both_ways, buckets=32, longest=128):
    """T5's buckets of distances key - query (Raffel et al. 2020, section 2.1): exact when near, logarithmic when far."""
    start = 0
    if both_ways:
        buckets //= 2
        start, distance = (buckets if distance > 0 else 0), abs(distance)
    else:
        distance = max(-distance, 0)
    if distance < buckets // 2:
        return start + distance
    far = math.log(distance / (buckets // 2)) / math.log(longest / (buckets // 2)) * (buckets - buckets // 2)
    return start + min(buckets // 2 + int(far), buckets - 1)


@pytest.mark.parametrize("part", ["encoder", "decoder", "cross"])
def test_t5(open_tiny, part):
    """T5 scales nothing and adds a bias by distance, the same in all layers, and none where the decoder reads the encoder."""
    model = open_tiny("t5").model.double()
    stack = model.encoder if part == "encoder" else model.decoder
    layer = stack.block[1].layer
    module = layer[1].EncDecAttention if part == "cross" else layer[0].SelfAttention
    seen = paired(model, module)
    table = stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    for row, length in enumerate(MASK.sum(1)):
        states = seen["input"][row, :length]
        read = seen["read"][row, :length] if part == "cross" else states
        bias = None if part == "cross" else lambda head, i, j: table[bucket(j - i, part == "encoder"), head]
        sees = (lambda i, j: j <= i) if part == "decoder" else (lambda i, j: True)
        expected = formula(module.q(states), module.k(read), module.v(read), sees, scale=1.0, bias=bias)
        close(seen["output"][row, :length], module.o(expected))


def test_far_buckets():
    """Distances beyond the few tokens of the test above."""
    for both_ways in (True, False):
        distances = torch.arange(-300, 300)
        found = T5Attention._relative_position_bucket(distances, both_ways).tolist()
        assert found == [bucket(distance, both_ways) for distance in distances.tolist()]

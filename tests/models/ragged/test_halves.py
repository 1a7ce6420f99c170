"""The halves of a layer against the same computed by torch's autograd, in float64, with the very masks that were drawn."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from llmft.models.dropout import draw
from llmft.models.projection import Projection, Update, tensors_of
from llmft.models.ragged import attending, halves
from llmft.models.ragged.attending import Attending, groups_of
from llmft.models.ragged.halves import ACTIVATIONS, AttentionHalf, FeedForwardHalf, Wrap

WIDTH, HEADS, INNER = 12, 3, 20
LENGTHS, READ = (4, 1, 6), (3, 5, 2)


@pytest.fixture
def masks(monkeypatch):
    """All masks drawn, in order."""
    drawn = []

    def keeping(shape, rate):
        drawn.append(draw(shape, rate))
        return drawn[-1]

    monkeypatch.setattr(halves, "draw", keeping)
    monkeypatch.setattr(attending, "draw", keeping)
    torch.manual_seed(0)
    return drawn


def tensor(*shape):
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


def linear(out, inner, bias, rank=0):
    return Projection(tensor(out, inner), tensor(out) if bias else None, rank_update(out, inner, rank) if rank else None)


def rank_update(out, inner, rank):
    return Update(tensor(rank, inner), tensor(out, rank), 0.7)


def through(layer, x):
    """xW^T + b + s(xA^T)B^T."""
    found = F.linear(x, layer.weight, layer.bias)
    return (
        found
        if layer.update is None
        else found + layer.update.scale * F.linear(F.linear(x, layer.update.down), layer.update.up)
    )


def normed(x, weight, bias):
    if bias is not None:
        return F.layer_norm(x, x.shape[-1:], weight, bias, 1e-5)
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight


def around(inner, h, norm, first, rate, masks):
    """h + dropout(f(norm(h))), or norm(h + dropout(f(h))); the mask of the outer dropout is the last one drawn."""
    y = inner(normed(h, *norm) if first else h)
    if rate:
        y = y * masks.pop().ones(y) / (1 - rate)
    return h + y if first else normed(h + y, *norm)


def gradients(found, tensors):
    given = [each for each in tensors if each is not None]
    return torch.autograd.grad((found * torch.linspace(-1, 2, found.numel(), dtype=found.dtype).view_as(found)).sum(), given)


def assert_alike(found, expected, tensors):
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for one, two in zip(gradients(found, tensors), gradients(expected, tensors), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("first", [True, False], ids=["norm first", "norm last"])
@pytest.mark.parametrize("gate", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize("rank", [0, 2], ids=["", "updated"])
@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_new", "silu"])
def test_feed_forward(masks, activation, rank, gate, first, rate):
    bias = not first
    norm = tensor(WIDTH), tensor(WIDTH) if bias else None
    up, down = linear(INNER, WIDTH, bias, rank), linear(WIDTH, INNER, bias, rank)
    gates = [linear(INNER, WIDTH, bias)] if gate else []
    h, layers = tensor(7, WIDTH), [up, *gates, down]
    tensors = [*norm, *tensors_of(layers)]
    found = FeedForwardHalf.apply(Wrap(first, 1e-5, rate), ACTIVATIONS[activation], rate, layers, h, *tensors)
    assert len(masks) == (2 if rate else 0)

    def inner(x):
        active = nn.functional.gelu(through(up, x), approximate="tanh") if activation == "gelu_new" else None
        active = getattr(F, activation)(through(up, x)) if active is None else active
        if gate:
            active = active * through(gates[0], x)
        if rate:
            active = active * masks[0].ones(active) / (1 - rate)
        return through(down, active)

    assert_alike(found, around(inner, h, norm, first, rate, masks), [h, *tensors])


@pytest.mark.parametrize("rate", [0.0, 0.3])
@pytest.mark.parametrize("first", [True, False], ids=["norm first", "norm last"])
@pytest.mark.parametrize("rank", [0, 2], ids=["", "updated"])
@pytest.mark.parametrize("kind", ["self", "causal", "bias", "cross"])
def test_attention(masks, kind, rank, first, rate):
    biased = not first
    norm = tensor(WIDTH), tensor(WIDTH) if biased else None
    q, k, v, o = layers = [linear(WIDTH, WIDTH, biased, rank) for _ in range(4)]
    h, memory = tensor(sum(LENGTHS), WIDTH), tensor(sum(READ), WIDTH) if kind == "cross" else None
    read = READ if kind == "cross" else LENGTHS
    bias = {
        "causal": torch.full((1, 6, 6), float("-inf"), dtype=torch.float64).triu_(1),
        "bias": tensor(HEADS, 6, 6),
    }.get(kind)
    how = Attending(groups_of(LENGTHS, read, HEADS, torch.float64), None if bias is None else bias.detach(), rate)
    found = AttentionHalf.apply(Wrap(first, 1e-5, rate), how, 0.5, layers, h, memory, bias, *norm, *tensors_of(layers))
    assert len(masks) == (2 if rate else 0)  # documents of up to eight tokens are computed at once

    def inner(x):
        parts = []
        keys_of = x if memory is None else memory
        for place, (rows, keys) in enumerate(zip(x.split(LENGTHS), keys_of.split(read), strict=True)):
            queries, key, value = (
                through(layer, each).unflatten(1, (HEADS, -1)).transpose(0, 1)
                for each, layer in ((rows, q), (keys, k), (keys, v))
            )
            scores = queries @ key.transpose(1, 2) / 2
            if bias is not None:
                scores = scores + bias[:, : scores.shape[1], : scores.shape[2]]
            weights = scores.softmax(-1)
            if rate:
                ones = masks[0].ones(weights.new_empty(3, HEADS, 6, max(read)))[place, :, : len(rows), : len(keys)]
                weights = weights * ones / (1 - rate)
            parts.append((weights @ value).transpose(0, 1).flatten(1))
        return through(o, torch.cat(parts))

    tensors = [h, memory, bias if kind == "bias" else None, *norm, *tensors_of(layers)]
    assert_alike(found, around(inner, h, norm, first, rate, masks), tensors)


def test_what_is_frozen_has_no_gradient(masks):
    norm, up, down = (tensor(WIDTH), tensor(WIDTH)), linear(INNER, WIDTH, True), linear(WIDTH, INNER, True)
    for each in (*norm, up.weight, up.bias):
        each.requires_grad_(False)
    h, layers = tensor(3, WIDTH), [up, down]
    wrap, activation = Wrap(False, 1e-5, 0.0), ACTIVATIONS["gelu"]
    FeedForwardHalf.apply(wrap, activation, 0.0, layers, h, *norm, *tensors_of(layers)).sum().backward()
    assert all(each.grad is None for each in (*norm, up.weight, up.bias))
    assert all(each.grad is not None for each in (h, down.weight, down.bias))

"""Transformers' layers taken apart: which weights the halves of each one are made of, for the architectures known here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from llmft.models import filling
from llmft.models.projection import Projection, projection_of, tensors_of
from llmft.models.ragged.attending import Attending, Groups, groups_of
from llmft.models.ragged.halves import ACTIVATIONS, Activation, AttentionHalf, FeedForwardHalf, Wrap
from llmft.models.ragged.norm import Norm, norm_of

# N flat tokens, K flat tokens that are read, D model width, H heads


class Unknown(Exception):
    """A model that is not made of the layers known here."""


@dataclass(frozen=True)
class Attention:
    """Attention of a layer: its norm, its projections q, k, v and o, and how it is computed."""

    norm: Norm
    projections: tuple[Projection, ...]
    heads: int
    scale: float
    dropout: float


@dataclass(frozen=True)
class FeedForward:
    """Feed-forward part of a layer: its norm, its projections up, gate if there is one, and down, and how it is computed."""

    norm: Norm
    projections: tuple[Projection, ...]
    activation: Activation
    dropout: float


@dataclass(frozen=True)
class Layer:
    """A layer; `cross` reads another stack, None in encoders. norm_first: whether norms stand before the parts or behind them."""

    attention: Attention
    cross: Attention | None
    feed_forward: FeedForward
    norm_first: bool
    dropout: float


def projections_of(*modules: nn.Module) -> tuple[Projection, ...]:
    """Return what linear layers compute. Raises Unknown for one that is not known here."""
    found = []
    for module in modules:
        if (projection := projection_of(module)) is None:
            raise Unknown(
                f"a layer is a {type(module).__module__}.{type(module).__name__} that is more than a product and a plain update"
            )
        found.append(projection)
    return tuple(found)


def known_norm(module: nn.Module) -> Norm:
    """Return a norm. Raises Unknown for one that is none of those known here."""
    if (norm := norm_of(module)) is None:
        raise Unknown(f"a norm is a {type(module).__name__}")
    return norm


def known_activation(name: str) -> Activation:
    """Return an activation. Raises Unknown for one that is not known here."""
    if name not in ACTIVATIONS:
        raise Unknown(f"the activation is {name}")
    return ACTIVATIONS[name]


def bert_layers(model: PreTrainedModel) -> list[Layer]:
    """Take an encoder of BERT's kind apart. Raises Unknown where it is another."""
    config: Any = model.config
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        raise Unknown("it is a decoder")
    found = []
    layers: Any = model.base_model.encoder.layer  # type: ignore[union-attr]
    for layer in layers:
        inner, outer = layer.attention.self, layer.attention.output
        attention = Attention(
            known_norm(outer.LayerNorm),
            projections_of(inner.query, inner.key, inner.value, outer.dense),
            inner.num_attention_heads,
            inner.attention_head_size**-0.5,
            config.attention_probs_dropout_prob,
        )
        feeding = FeedForward(
            known_norm(layer.output.LayerNorm),
            projections_of(layer.intermediate.dense, layer.output.dense),
            known_activation(config.hidden_act),
            0.0,
        )
        found.append(Layer(attention, None, feeding, False, config.hidden_dropout_prob))
    return found


def t5_layers(stack: Any) -> list[Layer]:
    """Take T5's encoder or decoder apart. Raises Unknown where it is another."""
    config = stack.config
    found = []
    for block in stack.block:
        parts = []
        for part in block.layer[:-1]:
            inner = part.EncDecAttention if hasattr(part, "EncDecAttention") else part.SelfAttention
            projections = projections_of(inner.q, inner.k, inner.v, inner.o)
            parts.append(Attention(known_norm(part.layer_norm), projections, inner.n_heads, 1.0, config.dropout_rate))
        last, dense = block.layer[-1], block.layer[-1].DenseReluDense
        inputs = (dense.wi_0, dense.wi_1) if config.is_gated_act else (dense.wi,)
        feeding = FeedForward(
            known_norm(last.layer_norm),
            projections_of(*inputs, dense.wo),
            known_activation(config.dense_act_fn),
            config.dropout_rate,
        )
        found.append(Layer(parts[0], parts[1] if parts[1:] else None, feeding, True, config.dropout_rate))
    return found


def bart_layers(stack: Any) -> list[Layer]:
    """Take BART's or Marian's encoder or decoder apart. Raises Unknown where it is another."""
    config = stack.config
    if stack.layerdrop:
        raise Unknown("whole layers are dropped")

    def attention_of(part: Any, norm: nn.Module) -> Attention:
        projections = projections_of(part.q_proj, part.k_proj, part.v_proj, part.out_proj)
        return Attention(known_norm(norm), projections, part.num_heads, part.scaling, part.dropout)

    found = []
    for layer in stack.layers:
        cross = attention_of(layer.encoder_attn, layer.encoder_attn_layer_norm) if hasattr(layer, "encoder_attn") else None
        feeding = FeedForward(
            known_norm(layer.final_layer_norm),
            projections_of(layer.fc1, layer.fc2),
            known_activation(config.activation_function),
            layer.activation_dropout,
        )
        own = attention_of(layer.self_attn, layer.self_attn_layer_norm)
        found.append(Layer(own, cross, feeding, False, layer.dropout))
    return found


@dataclass(frozen=True)
class Asked:
    """The flat tokens whose states are read behind the last layer: their rows (M), in order, and how many are each document's."""

    rows_M: Tensor
    counts: tuple[int, ...]


def run(
    layers: Sequence[Layer],
    h_ND: Tensor,
    lengths: Sequence[int],
    bias_HLS: Tensor | None,
    memory_KD: Tensor | None,
    read: Sequence[int],
    training: bool,
    asked: Asked | None = None,
) -> Tensor:
    """Send flat tokens of documents with these `lengths` through layers; decoders read `memory_KD`, `read` rows a document.

    asked: of encoders whose norms come last, the tokens whose states are returned: in the last layer, of the others only keys
    and values are computed. None: all.
    """
    if asked is not None and not layers:
        return h_ND.index_select(0, asked.rows_M)
    rows = len(h_ND) if asked is None else len(asked.rows_M)
    if filling.pays(h_ND):
        lengths, read, asked = filled_up(lengths, read, asked)
        h_ND, memory_KD = (
            filling.to_rows(h_ND, sum(lengths)),
            memory_KD if memory_KD is None else filling.to_rows(memory_KD, sum(read)),
        )
        if bias_HLS is not None and (more := max(lengths) - bias_HLS.shape[1]) > 0:
            bias_HLS = F.pad(bias_HLS, (0, more, 0, more))
    added_HLS = None if bias_HLS is None else bias_HLS.detach().to(h_ND.dtype)  # layers read it in no other format
    heads = layers[0].attention.heads if layers else 1
    own = groups_of(lengths, lengths, heads, h_ND.dtype)
    other = groups_of(lengths, read, heads, h_ND.dtype) if memory_KD is not None else None
    for layer in layers:
        dropout = layer.dropout if training else 0.0
        mine: tuple[Groups, Tensor | None] = own, None
        if asked is not None and layer is layers[-1]:
            assert not layer.norm_first
            assert memory_KD is None
            mine = (
                groups_of(asked.counts, lengths, heads, h_ND.dtype),
                h_ND,
            )  # attention to what all tokens are, as to another stack's
            h_ND = h_ND.index_select(0, asked.rows_M)
        for part, (groups, memory), bias in ((layer.attention, mine, bias_HLS), (layer.cross, (other, memory_KD), None)):
            if part is not None:
                assert groups is not None
                assert part.heads == heads, "layers of one stack with different numbers of heads"
                wrap = Wrap(layer.norm_first, part.norm.eps, dropout)
                attending = Attending(groups, None if bias is None else added_HLS, part.dropout if training else 0.0)
                tensors = (*part.norm[:2], *tensors_of(part.projections))
                h_ND = AttentionHalf.apply(wrap, attending, part.scale, part.projections, h_ND, memory, bias, *tensors)
        feeding = layer.feed_forward
        wrap = Wrap(layer.norm_first, feeding.norm.eps, dropout)
        inner = feeding.dropout if training else 0.0
        tensors = (*feeding.norm[:2], *tensors_of(feeding.projections))
        h_ND = FeedForwardHalf.apply(wrap, feeding.activation, inner, feeding.projections, h_ND, *tensors)
    return h_ND[:rows]


def filled_up(
    lengths: Sequence[int], read: Sequence[int], asked: Asked | None
) -> tuple[Sequence[int], Sequence[int], Asked | None]:
    """Return the lengths with those of a document that fills the batch up: none, or one that is empty in neither stack."""
    more, others = (filling.rounded_up(total) - total for total in (sum(lengths), sum(read)))
    if not (more or others):
        return lengths, read, asked
    return (
        (*lengths, more or filling.STEP),
        (*read, others or filling.STEP) if read else read,
        None if asked is None else Asked(asked.rows_M, (*asked.counts, 0)),
    )

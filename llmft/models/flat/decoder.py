"""A decoder's forward pass over a ragged batch, layer by layer, on the weights of transformers' model.

For architectures that are made like Llama: norm, attention with rotary positions, norm, gated feed-forward layer.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from llmft.data.batch import Batch, Stream, stream_of
from llmft.hardware.arena import Arena
from llmft.models import filling
from llmft.models.attention import checkpointed
from llmft.models.flat.attending import Attending
from llmft.models.flat.block import AttentionHalf, FeedForwardHalf
from llmft.models.frozen import Frozen, key_of
from llmft.models.lookup import looked_up
from llmft.models.projection import Projection, projection_of, tensors_of
from llmft.models.rounding import narrow_rows

# N flat tokens, M rows that carry loss, D model width

KNOWN = {"llama", "mistral", "qwen2", "qwen3"}
"""Architectures (transformers' model_type) whose layers are what `FlatDecoder` computes; others look alike and are not."""

HEAD_NORMS = ("q_norm", "k_norm")


@dataclass(frozen=True)
class Layer:
    """The parts of one layer: norms, projections, norms of heads (or None), and the window of its attention, None: no limit."""

    attention_norm: nn.Module
    attention: tuple[Projection, ...]
    feed_forward_norm: nn.Module
    feed_forward: tuple[Projection, ...]
    head_norms: tuple[Tensor | None, Tensor | None]
    scale: float
    window: int | None


def layers_of(model: PreTrainedModel) -> list[Layer] | None:
    """Return the model's layers as this module computes them; None where one is something else."""
    config = model.config
    if config.model_type not in KNOWN or config.hidden_act != "silu" or getattr(config, "attention_dropout", 0.0):
        return None
    found = []
    for layer in model.base_model.layers:  # type: ignore[union-attr]
        attention, inner = layer.self_attn, layer.mlp
        attending = [projection_of(each) for each in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)]
        feeding = [projection_of(each) for each in (inner.gate_proj, inner.up_proj, inner.down_proj)]
        if None in attending or None in feeding:
            return None
        found.append(
            Layer(
                layer.input_layernorm,
                tuple(attending),  # type: ignore[arg-type]
                layer.post_attention_layernorm,
                tuple(feeding),  # type: ignore[arg-type]
                tuple(norm.weight if norm else None for norm in (getattr(attention, name, None) for name in HEAD_NORMS)),  # type: ignore[arg-type]
                attention.scaling,
                attention.sliding_window if hasattr(attention, "sliding_window") else getattr(config, "sliding_window", None),
            )
        )
    return found


def flat_states(
    model: PreTrainedModel, layers: list[Layer], batch: Batch, dtype: torch.dtype, frozen: Frozen | None = None
) -> Tensor:
    """Return the last hidden states (M, D) of the rows that carry loss, computed in `dtype`.

    In the last layer only those rows ask and go on (on processors): of the others, nothing is read but keys and values.
    """
    stream, count = batch.stream, frozen.count if frozen else 0
    if frozen is None:
        h_ND = embedded(model, stream.tokens_N, dtype)
    elif frozen.states is None:
        h_ND = below(model, layers[:count], stream, dtype)
    else:
        assert stream.parents is None, "pieces of documents"
        documents = [each.numpy() for each in stream.tokens_N.split(list(stream.lengths))]
        h_ND = frozen.states.of(
            [key_of(ids) for ids in documents],
            stream.lengths,
            lambda place: below(model, layers[:count], stream_of([documents[place]]), dtype),
        )
    rows_M = batch.loss_rows_M
    narrow = count < len(layers) and not h_ND.is_cuda
    h_ND = run(model, layers[count:], h_ND, stream, rows_M if narrow else None)
    # a norm that is trained gives float32, in which its weight is
    return model.base_model.norm(h_ND if narrow else h_ND[rows_M]).to(dtype)  # type: ignore[operator]


@torch.no_grad()
def below(model: PreTrainedModel, layers: list[Layer], stream: Stream, dtype: torch.dtype) -> Tensor:
    """Return what the embeddings and frozen layers make of a stream (N, D)."""
    return run(model, layers, embedded(model, stream.tokens_N, dtype), stream)


def embedded(model: PreTrainedModel, tokens_N: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the embeddings of tokens (N, D)."""
    table: Any = model.base_model.embed_tokens
    return narrow_rows(looked_up(model, table, tokens_N), table.weight, tokens_N, dtype)


def run(model: PreTrainedModel, layers: list[Layer], h_ND: Tensor, stream: Stream, rows_M: Tensor | None = None) -> Tensor:
    """Send hidden states through layers. rows_M: those that the last one returns, None: all."""
    count = len(h_ND) if rows_M is None else len(rows_M)
    if filling.pays(h_ND):
        stream, rows_M = filled_up(stream), None if rows_M is None else filling.filled_up_rows(rows_M)
        h_ND = filling.to_rows(h_ND, len(stream.tokens_N))
    cos, sin = model.base_model.rotary_emb(h_ND[None], position_ids=stream.positions_N[None])  # type: ignore[operator]
    kinds: dict[tuple[bool, float, int | None], Attending] = {}
    grad = torch.is_grad_enabled()
    drops = any(
        each.update is not None and each.update.dropout for layer in layers for each in (*layer.attention, *layer.feed_forward)
    )
    again = grad and model.training and checkpointed(model)
    # a GPU's memory torch looks after itself
    arena = Arena() if grad and not again and not h_ND.is_cuda else None
    for place, layer in enumerate(layers):
        rows = rows_M if place == len(layers) - 1 else None
        kind = (rows is None, layer.scale, layer.window)
        if kind not in kinds:
            kinds[kind] = Attending(stream, rows, cos[0], sin[0], layer.scale, layer.window, arena)
        if again:
            h_ND = checkpoint(through, h_ND, layer, kinds[kind], use_reentrant=False, preserve_rng_state=drops)
        else:
            h_ND = through(h_ND, layer, kinds[kind])
    return h_ND[:count]


def filled_up(stream: Stream) -> Stream:
    """Return a stream with a document behind it that belongs to rows of zeros."""
    count = filling.rounded_up(len(stream.tokens_N)) - len(stream.tokens_N)
    if not count:
        return stream
    last = stream_of([np.zeros(count, dtype=np.int64)])
    tokens_N, positions_N = torch.cat([stream.tokens_N, last.tokens_N]), torch.cat([stream.positions_N, last.positions_N])
    parents = None if stream.parents is None else (*stream.parents, -1)
    return Stream(tokens_N, positions_N, (*stream.lengths, count), parents)


def through(h_ND: Tensor, layer: Layer, attending: Attending) -> Tensor:
    """Send hidden states through one layer."""
    norm = layer.attention_norm
    h_ND = AttentionHalf.apply(
        h_ND, norm.weight, norm.variance_epsilon, attending, layer.attention, *tensors_of(layer.attention), *layer.head_norms
    )
    norm, feeding = layer.feed_forward_norm, layer.feed_forward
    return FeedForwardHalf.apply(h_ND, norm.weight, norm.variance_epsilon, attending.arena, feeding, *tensors_of(feeding))

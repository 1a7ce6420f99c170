"""A decoder's forward pass over a ragged batch, layer by layer, on the weights of transformers' model.

For architectures that are made like Llama: norm, attention with rotary positions, norm, gated feed-forward layer.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from llmft.data.batch import Batch
from llmft.hardware.arena import Arena
from llmft.models.flat.attending import Attending
from llmft.models.flat.block import AttentionHalf, FeedForwardHalf
from llmft.models.lookup import looked_up
from llmft.models.projection import Projection, projection_of, tensors_of

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


def flat_states(model: PreTrainedModel, layers: list[Layer], batch: Batch, dtype: torch.dtype) -> Tensor:
    """Return the last hidden states (M, D) of the rows that carry loss, computed in `dtype`.

    In the last layer only those rows ask and go on (on processors): of the others, nothing is read but keys and values.
    """
    base, stream = model.base_model, batch.stream
    h_ND = looked_up(model, base.embed_tokens, stream.tokens_N).to(dtype)
    cos, sin = base.rotary_emb(h_ND[None], position_ids=stream.positions_N[None])  # type: ignore[operator]
    kinds: dict[tuple[bool, float, int | None], Attending] = {}
    again = model.training and model.is_gradient_checkpointing
    # a GPU's memory torch looks after itself
    arena = Arena() if torch.is_grad_enabled() and not again and not h_ND.is_cuda else None
    for place, layer in enumerate(layers):
        rows = batch.loss_rows_M if place == len(layers) - 1 and not h_ND.is_cuda else None
        kind = (rows is None, layer.scale, layer.window)
        if kind not in kinds:
            kinds[kind] = Attending(stream, rows, cos[0], sin[0], layer.scale, layer.window, arena)
        if again:
            h_ND = checkpoint(through, h_ND, layer, kinds[kind], use_reentrant=False, preserve_rng_state=False)
        else:
            h_ND = through(h_ND, layer, kinds[kind])
    return base.norm(h_ND[batch.loss_rows_M] if h_ND.is_cuda else h_ND)  # type: ignore[operator]


def through(h_ND: Tensor, layer: Layer, attending: Attending) -> Tensor:
    """Send hidden states through one layer."""
    norm = layer.attention_norm
    h_ND = AttentionHalf.apply(
        h_ND, norm.weight, norm.variance_epsilon, attending, layer.attention, *tensors_of(layer.attention), *layer.head_norms
    )
    norm, feeding = layer.feed_forward_norm, layer.feed_forward
    return FeedForwardHalf.apply(h_ND, norm.weight, norm.variance_epsilon, attending.arena, feeding, *tensors_of(feeding))

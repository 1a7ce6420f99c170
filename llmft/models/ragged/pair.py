"""Encoder-decoders over flat tokens: sources end to end through the encoder, answers end to end through the decoder."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from llmft.data.batch import Batch, Stream
from llmft.models.attention import checkpointed
from llmft.models.dropout import dropped
from llmft.models.frozen import Frozen
from llmft.models.lookup import looked_up
from llmft.models.loss import token_loss
from llmft.models.padded import vocabulary_head
from llmft.models.ragged.layers import Layer, Unknown, bart_layers, run, t5_layers

# N flat tokens of sources, M of answers, D model width, H heads, T tokens of the longest document


@dataclass(frozen=True)
class Kind:
    """How an architecture's stacks are taken apart, what a stack makes of its tokens' embeddings, and what comes behind the layers."""

    layers: Callable[[Any], list[Layer]]
    enter: Callable[[Any, Tensor, Stream], Tensor]
    leave: Callable[[Any, Tensor], Tensor]


def enter_t5(stack: Any, embedded_ND: Tensor, stream: Stream) -> Tensor:
    """T5 has no positions but in its attention."""
    return dropped(embedded_ND, stack.config.dropout_rate, stack.training)


def leave_t5(stack: Any, h_ND: Tensor) -> Tensor:
    """A norm and dropout stand behind T5's layers."""
    return dropped(stack.final_layer_norm(h_ND).to(h_ND.dtype), stack.config.dropout_rate, stack.training)


def enter_bart(stack: Any, embedded_ND: Tensor, stream: Stream) -> Tensor:
    """BART's positions are learnt, and a norm stands behind them."""
    h_ND = embedded_ND + stack.embed_positions(embedded_ND, position_ids=stream.positions_N)[0]
    return dropped(stack.layernorm_embedding(h_ND), stack.dropout, stack.training)


def enter_marian(stack: Any, embedded_ND: Tensor, stream: Stream) -> Tensor:
    """Marian's embeddings are scaled, its positions are sines."""
    positions_ND = stack.embed_positions(embedded_ND.shape, position_ids=stream.positions_N)
    return dropped(embedded_ND * stack.embed_scale + positions_ND, stack.dropout, stack.training)


def leave_bart(stack: Any, h_ND: Tensor) -> Tensor:
    """Nothing stands behind the layers of BART and Marian."""
    return h_ND


KINDS = {
    "t5": Kind(t5_layers, enter_t5, leave_t5),
    "mt5": Kind(t5_layers, enter_t5, leave_t5),
    "bart": Kind(bart_layers, enter_bart, leave_bart),
    "marian": Kind(bart_layers, enter_marian, leave_bart),
}
"""By transformers' model_type."""


def reason_against(model: PreTrainedModel) -> str | None:
    """Say why a model cannot be computed over flat tokens; None where it can be."""
    kind = KINDS.get(model.config.model_type)
    if kind is None:
        return f"{model.config.model_type} is not made of layers known here"
    if model.device.type != "cpu":
        return "a GPU computes padding faster than so many small products"
    if checkpointed(model):
        return "layers are computed again in the backward pass"
    try:
        for stack in (model.get_encoder(), model.get_decoder()):
            kind.layers(stack)
    except Unknown as reason:
        return str(reason)
    return None


def flat_pair_loss(model: PreTrainedModel, batch: Batch, dtype: torch.dtype, frozen: Frozen | None = None) -> Tensor:
    """Cross-entropy of an encoder-decoder, summed in float32 over the target tokens that carry loss."""
    return token_loss(pair_states(model, batch, dtype, frozen), vocabulary_head(model), batch.targets_M)


def pair_states(model: PreTrainedModel, batch: Batch, dtype: torch.dtype, frozen: Frozen | None = None) -> Tensor:
    """Return the decoder's last hidden states of the rows that carry loss, as its output embedding reads them, computed in `dtype`.

    frozen: lowest layers of the encoder that are not trained. What they make of a document is not kept: dropout on embeddings
    makes it another one each time.
    """
    assert batch.source is not None
    kind = KINDS[model.config.model_type]
    encoder, decoder = model.get_encoder(), model.get_decoder()
    sources_ND, answers_MD = embedded(model, batch.source, batch.stream)
    asked, written = batch.source.lengths, batch.stream.lengths
    h_ND = kind.enter(encoder, sources_ND, batch.source).to(dtype)
    layers, count = kind.layers(encoder), frozen.count if frozen else 0
    bias_HTT = position_bias(encoder, max(asked))
    with torch.no_grad() if count else nullcontext():
        h_ND = run(layers[:count], h_ND, asked, bias_HTT, None, (), training=False)
    h_ND = run(layers[count:], h_ND, asked, bias_HTT, None, (), encoder.training)
    memory_ND = kind.leave(encoder, h_ND)
    h_MD = kind.enter(decoder, answers_MD, batch.stream).to(dtype)
    bias = causal(position_bias(decoder, max(written)), max(written), h_MD)
    h_MD = run(kind.layers(decoder), h_MD, written, bias, memory_ND, asked, decoder.training)
    states_MD = kind.leave(decoder, h_MD)[batch.loss_rows_M]
    return states_MD * model.config.d_model**-0.5 if getattr(model.config, "scale_decoder_outputs", False) else states_MD


def embedded(model: PreTrainedModel, source: Stream, stream: Stream) -> tuple[Tensor, Tensor]:
    """Return the embeddings of sources and answers; looked up at once where they share a table, whose gradient is then made once."""
    reading, writing = (stack.embed_tokens for stack in (model.get_encoder(), model.get_decoder()))
    if reading.weight is not writing.weight:
        return looked_up(model, reading, source.tokens_N), looked_up(model, writing, stream.tokens_N)
    both = looked_up(model, reading, torch.cat([source.tokens_N, stream.tokens_N]))
    return both[: len(source.tokens_N)], both[len(source.tokens_N) :]


def position_bias(stack: Any, longest: int) -> Tensor | None:
    """Return T5's bias by relative position (H, T, T), which is the same for all documents from their first token on."""
    if not hasattr(stack, "block"):
        return None
    return stack.block[0].layer[0].SelfAttention.compute_bias(longest, longest)[0]


def causal(bias_HTT: Tensor | None, longest: int, like: Tensor) -> Tensor:
    """Return what hides the tokens behind each one (1, T, T), added to a bias (H, T, T) if there is one."""
    future = torch.full((1, longest, longest), float("-inf"), device=like.device).triu_(1)
    return future if bias_HTT is None else bias_HTT + future

"""Encoders over flat tokens: inside transformers' own forward pass, their layers see the tokens of a padded batch alone."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from llmft.models.attention import checkpointed, ragged
from llmft.models.computing import computing
from llmft.models.dropout import dropped
from llmft.models.frozen import Frozen, key_of
from llmft.models.instead import instead
from llmft.models.lookup import rows_of, writable
from llmft.models.ragged.layers import Asked, Layer, Unknown, bert_layers, run

# B documents, T tokens of the longest, N tokens of all, M of them whose states are read, D model width

KNOWN = {"bert", "roberta", "xlm-roberta", "camembert", "electra"}
"""Architectures (transformers' model_type) whose encoder is what `bert_layers` takes apart; others look alike and are not."""


def reason_against(model: PreTrainedModel) -> str | None:
    """Say why a model's layers cannot be computed over flat tokens; None where they can be."""
    if model.config.model_type not in KNOWN:
        return f"{model.config.model_type} is not made of layers known here"
    if model.device.type != "cpu":
        return "a GPU computes padding faster than so many small products"
    if checkpointed(model):
        return "layers are computed again in the backward pass"
    try:
        bert_layers(model)
    except Unknown as reason:
        return str(reason)
    return None


@contextmanager
def encoding(
    model: PreTrainedModel,
    inputs: Mapping[str, Tensor],
    precision: torch.dtype,
    flat: bool,
    asked_M: Tensor | None = None,
    frozen: Frozen | None = None,
) -> Iterator[None]:
    """A block in which an encoder reads a padded batch in `precision`, and computes no padding in its layers if `flat`.

    asked_M, frozen: as in `flat_encoder`.
    """
    with computing(model, precision), flat_encoder(model, inputs, precision, asked_M, frozen) if flat else nullcontext():
        yield


def first_tokens(inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the places in a flattened batch (B, T) of what the architectures known here classify a text by: its first token."""
    mask_BT = inputs["attention_mask"]
    return torch.arange(len(mask_BT), device=mask_BT.device) * mask_BT.shape[1]


@contextmanager
def flat_encoder(
    model: PreTrainedModel,
    inputs: Mapping[str, Tensor],
    dtype: torch.dtype,
    asked_M: Tensor | None = None,
    frozen: Frozen | None = None,
) -> Iterator[None]:
    """Inside the block the encoder computes no padding; what comes before it and behind it is the model's own.

    inputs: what the model is about to read, whose mask is 1 for tokens, 0 for padding, which stands on the right. asked_M:
    places in the flattened batch, in order, whose states are read; None: those of all tokens. All other states are 0. The
    layers compute in `dtype`. frozen: lowest layers that are not trained.
    """
    layers, count = bert_layers(model), frozen.count if frozen else 0
    mask_BT = inputs["attention_mask"]
    encoder: Any = model.base_model.encoder
    dropout: Any = model.base_model.embeddings.dropout  # type: ignore[union-attr]
    lengths = mask_BT.sum(1).tolist()
    places_N = mask_BT.flatten().nonzero()[:, 0]
    whole = len(places_N) == mask_BT.numel()
    asked = None
    if asked_M is not None:
        assert (asked_M.diff() > 0).all(), "a place is asked for twice, or before one that stands in front of it"
        assert mask_BT.flatten()[asked_M].all(), "padding is asked for"
        counts = torch.bincount(asked_M // mask_BT.shape[1], minlength=len(lengths)).tolist()
        asked = Asked((mask_BT.flatten().cumsum(0) - 1)[asked_M], tuple(counts))

    def forward(hidden_states: Tensor, *_: Any, **options: Any) -> BaseModelOutputWithPastAndCrossAttentions:
        h_XD = hidden_states.flatten(0, 1)
        h_ND = (h_XD if whole else h_XD[places_N]).to(dtype)
        with torch.autocast(h_ND.device.type, enabled=False):  # the halves choose the format of each product themselves
            if frozen is not None:
                h_ND = below(layers[:count], h_ND, lengths, frozen, inputs)
            h_ND = run(layers[count:], h_ND, lengths, None, None, (), encoder.training, asked)
        filled = places_N if asked_M is None else asked_M
        states = h_ND if len(h_ND) == len(h_XD) else torch.zeros_like(h_XD, dtype=h_ND.dtype).index_copy(0, filled, h_ND)
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=states.view(hidden_states.shape))

    with ragged(model), ExitStack() as replaced:
        replaced.enter_context(instead(encoder, forward))
        replaced.enter_context(instead(dropout, partial(dropped_rows, dropout)))
        table: Any = model.get_input_embeddings()
        if writable(table):
            replaced.enter_context(instead(table, partial(rows_of, model, table)))
        yield


@torch.no_grad()
def below(
    layers: Sequence[Layer], h_ND: Tensor, lengths: Sequence[int], frozen: Frozen, inputs: Mapping[str, Tensor]
) -> Tensor:
    """Return what frozen layers make of flat tokens' embeddings (N, D), and drop nothing at random."""
    if frozen.states is None:
        return run(layers, h_ND, lengths, None, None, (), training=False)
    read = [inputs[name].numpy() for name in ("input_ids", "token_type_ids") if name in inputs]
    keys = [key_of(*(each[row, :length] for each in read)) for row, length in enumerate(lengths)]
    documents = h_ND.split(list(lengths))
    return frozen.states.of(
        keys, lengths, lambda place: run(layers, documents[place], lengths[place : place + 1], None, None, (), training=False)
    )


def dropped_rows(module: nn.Dropout, h_BTD: Tensor) -> Tensor:
    """A module's dropout, by the masks of the layers."""
    return dropped(h_BTD.flatten(0, 1), module.p, module.training).view(h_BTD.shape)

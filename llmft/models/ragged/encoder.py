"""Encoders over flat tokens: inside transformers' own forward pass, their layers see the tokens of a padded batch alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from llmft.models.attention import ragged
from llmft.models.ragged.layers import Unknown, bert_layers, checkpointed, run

# B documents, T tokens of the longest, N tokens of all, D model width

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
def flat_encoder(model: PreTrainedModel, mask_BT: Tensor) -> Iterator[None]:
    """Inside the block the encoder computes no padding; what comes before it and behind it is the model's own.

    mask_BT: 1 for tokens, 0 for padding, which stands on the right. States of padding are 0.
    """
    layers = bert_layers(model)
    encoder: Any = model.base_model.encoder
    lengths = mask_BT.sum(1).tolist()
    places_N = mask_BT.flatten().nonzero()[:, 0]
    whole = len(places_N) == mask_BT.numel()

    def forward(hidden_states: Tensor, *_: Any, **options: Any) -> BaseModelOutputWithPastAndCrossAttentions:
        h_XD = hidden_states.flatten(0, 1)
        h_ND = run(layers, h_XD if whole else h_XD[places_N], lengths, None, None, (), encoder.training)
        states = h_ND if whole else torch.zeros_like(h_XD, dtype=h_ND.dtype).index_copy(0, places_N, h_ND)
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=states.view(hidden_states.shape))

    with ragged(model):
        encoder.forward = forward
        try:
            yield
        finally:
            del encoder.forward

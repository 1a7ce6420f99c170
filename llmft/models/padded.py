"""Forward passes over padded batches: encoder-decoders, whose positions are counted from the side, and all models with a head.

What is padding is told by length and masked, so a document's result does not depend on which others share the batch.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from llmft.data.batch import Batch, pad_stream, stream_of
from llmft.data.encode import Encoded
from llmft.errors import ModelError
from llmft.models import loss
from llmft.models.family import Family
from llmft.models.loss import summed_cross_entropy, token_loss

# B documents, T tokens of the longest, N tokens of all, M rows that carry loss, D model width, V vocabulary, C classes

# Architectures whose logits are those of the output embedding, plus a constant where they have one: a test holds each to its
# own. Their vocabulary is scored in chunks; others score all loss rows at once, in their own way.
CHUNKED = {"t5", "mt5", "umt5", "bart", "mbart", "marian", "m2m_100", "pegasus"}


def pair_loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Cross-entropy of an encoder-decoder, summed in float32 over the target tokens that carry loss."""
    assert batch.source is not None
    pad_id = model.config.pad_token_id or 0  # masked, so any token would do
    sources, source_mask = pad_stream(batch.source, pad_id)
    targets, target_mask = pad_stream(batch.stream, pad_id)
    inputs: dict[str, Any] = {"input_ids": sources, "attention_mask": source_mask}
    inputs |= {"decoder_input_ids": targets, "decoder_attention_mask": target_mask, "use_cache": False}
    rows_M = target_mask.flatten().nonzero()[:, 0][batch.loss_rows_M]
    if len(rows_M) > loss.CHUNK_ROWS and model.config.model_type in CHUNKED:
        with rows_before_head(model, rows_M[:0]) as seen:
            model(**inputs)
        return token_loss(seen[0].flatten(0, 1)[rows_M], vocabulary_head(model), batch.targets_M)
    return summed_cross_entropy(logits_of_rows(model, inputs, rows_M), batch.targets_M)


def vocabulary_head(model: PreTrainedModel) -> Callable[[Tensor], Tensor]:
    """Return what makes logits of hidden states: the output embedding, and BART's and Marian's bias where it is not 0 as it was made."""
    head = model.get_output_embeddings()
    bias = getattr(model, "final_logits_bias", None)
    return head if bias is None or not bias.any() else lambda hidden_MD: head(hidden_MD) + bias


def logits_of_rows(model: PreTrainedModel, inputs: dict[str, Any], rows_M: Tensor) -> Tensor:
    """Return the model's own logits (M, V) of the given rows of the flattened batch, without computing the others'."""
    with rows_before_head(model, rows_M) as seen:
        logits = model(**inputs).logits.flatten(0, 1)
    return logits if seen else logits[rows_M]  # nothing seen: an architecture that does not call its output embedding


@contextmanager
def rows_before_head(model: PreTrainedModel, rows_M: Tensor) -> Iterator[list[Tensor]]:
    """Give the vocabulary only the rows `rows_M` of the hidden states inside the block; yield a list that gets all of them."""
    seen: list[Tensor] = []

    def narrow(module: torch.nn.Module, given: tuple[Tensor, ...]) -> Tensor:
        seen.append(given[0])
        return given[0].flatten(0, 1)[rows_M][None]

    handle = model.get_output_embeddings().register_forward_pre_hook(narrow)
    try:
        yield seen
    finally:
        handle.remove()


def pad(documents: Sequence[Encoded], pad_id: int, device: torch.device, model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the inputs of a batch by name: ids and mask (B, T), filled up on the right, and token types where they are read."""
    stream = stream_of([document.ids for document in documents]).to(device)
    tokens, mask = pad_stream(stream, pad_id)
    inputs = {"input_ids": tokens, "attention_mask": mask}
    reads_types = "token_type_ids" in inspect.signature(model.forward).parameters
    if reads_types and getattr(model.config, "type_vocab_size", 0) > 1:  # GPT-2 would read them as words, RoBERTa has one type
        second = np.array([document.second or len(document.ids) for document in documents])
        places = torch.arange(tokens.shape[1], device=device)
        inputs["token_type_ids"] = (places >= torch.from_numpy(second).to(device)[:, None]).long() * mask
    return inputs


def label_logits(model: PreTrainedModel, family: Family, inputs: dict[str, Tensor]) -> Tensor:
    """Return the class scores (B, C) of a model with a label head.

    A decoder is asked at the last token that is no padding, found by length: transformers looks for the pad token, which
    many decoders lack, or share with the end token.
    """
    if family is Family.decoder:
        if not hasattr(model, "score"):
            raise ModelError(
                f"model.name: {model.config.model_type} keeps its classes elsewhere than other decoders; name another one"
            )
        states = model.base_model(**inputs, use_cache=False).last_hidden_state
        last = inputs["attention_mask"].sum(1) - 1
        return model.score(states[torch.arange(len(last), device=last.device), last])  # type: ignore[operator]
    if family is Family.encoder_decoder:
        ends = (inputs["input_ids"] == model.config.eos_token_id).long() * inputs["attention_mask"]
        if len(ends.sum(1).unique()) > 1:  # a text that holds the end token itself; the classes are asked for at the last one
            rows = [{name: value[row : row + 1] for name, value in inputs.items()} for row in range(len(ends))]
            return torch.cat([model(**row).logits for row in rows])
    return model(**inputs).logits


def span_logits(model: PreTrainedModel, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the scores (B, T) of each token as an answer's first and as its last; those of padding mean nothing."""
    found = model(**inputs)
    return found.start_logits, found.end_logits


def masked_loss(model: PreTrainedModel, inputs: dict[str, Tensor], positions_M: Tensor, targets_M: Tensor) -> Tensor:
    """Cross-entropy of the tokens behind masks, summed in float32; positions count along the flattened (B, T) batch."""
    return summed_cross_entropy(logits_of_rows(model, inputs, positions_M), targets_M)

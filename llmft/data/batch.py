"""Documents laid end to end as tensors, without padding, and the cutting of a step's documents into micro-batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from llmft.data.encode import Encoded

# N flat tokens of a ragged batch, M rows of them that carry loss

NEARLY_EVEN = 1 / 64
"""Share of the room of a micro-batch to which the least one is looked for."""


@dataclass(frozen=True)
class Stream:
    """Documents end to end: int64 tokens, their positions from 0 in each document, and the documents' lengths in tokens.

    With `parents` they are pieces of documents: a piece goes on where another one ends, -1 for one that begins a document.
    """

    tokens_N: Tensor
    positions_N: Tensor
    lengths: tuple[int, ...]
    parents: tuple[int, ...] | None = None

    def to(self, device: torch.device | str) -> "Stream":
        """Return the stream with its tensors on `device`."""
        return Stream(self.tokens_N.to(device), self.positions_N.to(device), self.lengths, self.parents)


@dataclass(frozen=True)
class Batch:
    """A micro-batch. `stream` is what predicts; `source` is what an encoder reads, None for decoders.

    Row `loss_rows_M[j]` of the flat stream has to predict token `targets_M[j]`; both int64. `units` is M.
    """

    stream: Stream
    source: Stream | None
    loss_rows_M: Tensor
    targets_M: Tensor
    row_ids: tuple[str, ...]
    units: int

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch with its tensors on `device`."""
        return Batch(
            stream=self.stream.to(device),
            source=None if self.source is None else self.source.to(device),
            loss_rows_M=self.loss_rows_M.to(device),
            targets_M=self.targets_M.to(device),
            row_ids=self.row_ids,
            units=self.units,
        )


def stream_of(documents: Sequence[np.ndarray]) -> Stream:
    """Lay documents end to end."""
    lengths = tuple(len(document) for document in documents)
    tokens_N = torch.from_numpy(np.concatenate(documents).astype(np.int64))
    positions_N = torch.from_numpy(np.concatenate([np.arange(length, dtype=np.int64) for length in lengths]))
    return Stream(tokens_N, positions_N, lengths)


def collate_decoder(encoded: Sequence[Encoded]) -> Batch:
    """Make a batch for next-token prediction: row i predicts token i + 1 of its own document, where the mask says so."""
    stream = stream_of([item.ids for item in encoded])
    # Shifted to the left within each document: its last row has nothing to predict, least of all the next document.
    bears_loss_N = np.concatenate([np.append(item.loss_mask[1:], False) for item in encoded])
    loss_rows_M = torch.from_numpy(np.flatnonzero(bears_loss_N))
    return Batch(
        stream=stream,
        source=None,
        loss_rows_M=loss_rows_M,
        targets_M=stream.tokens_N[loss_rows_M + 1],
        row_ids=tuple(item.id for item in encoded),
        units=len(loss_rows_M),
    )


def collate_pair(encoded: Sequence[Encoded], decoder_start_id: int) -> Batch:
    """Make a batch of sources and answers: row i of an answer has read the start token and i tokens, and predicts token i."""
    assert all(len(item.ids) for item in encoded), "an answer without tokens has no row that predicts"
    inputs = [np.concatenate([[decoder_start_id], item.ids[:-1]]) for item in encoded]
    loss_rows_M = torch.from_numpy(np.flatnonzero(np.concatenate([item.loss_mask for item in encoded])))
    targets_N = torch.from_numpy(np.concatenate([item.ids for item in encoded]).astype(np.int64))
    return Batch(
        stream=stream_of(inputs),
        source=stream_of([item.source_ids for item in encoded if item.source_ids is not None]),
        loss_rows_M=loss_rows_M,
        targets_M=targets_N[loss_rows_M],
        row_ids=tuple(item.id for item in encoded),
        units=len(loss_rows_M),
    )


def pad_stream(stream: Stream, pad_id: int) -> tuple[Tensor, Tensor]:
    """Return tokens and mask (both int64, documents x longest), filled up on the right: for what cannot read a flat stream.

    The mask tells tokens by length, so that a real token that is the pad token still counts.
    """
    lengths = torch.tensor(stream.lengths, device=stream.tokens_N.device)
    mask = torch.arange(max(stream.lengths), device=lengths.device) < lengths[:, None]
    tokens = torch.full(mask.shape, pad_id, device=lengths.device)
    tokens[mask] = stream.tokens_N
    return tokens, mask.long()


def cut(encoded: Sequence[Encoded], micro_tokens: int) -> list[list[Encoded]]:
    """Cut a step's documents into micro-batches of at most `micro_tokens` tokens, even ones; a longer document stands alone.

    Longest first, so that what does not fit into memory shows at once, and with documents of like length together.
    """
    ordered = sorted(encoded, key=len, reverse=True)

    def filled(room: int) -> list[list[Encoded]]:
        micro_batches: list[list[Encoded]] = []
        left = 0
        for item in ordered:
            if not micro_batches or len(item) > left:
                micro_batches.append([])
                left = room
            micro_batches[-1].append(item)
            left -= len(item)
        return micro_batches

    return evenly(filled, micro_tokens)


def cut_padded(encoded: Sequence[Encoded], micro_tokens: int) -> list[list[Encoded]]:
    """Cut as `cut` does, for models that read padded batches: what counts is documents times the longest of each stream.

    Longest source first, then longest answer, so that little is padded.
    """
    ordered = sorted(encoded, key=lambda each: (source_length(each), len(each.ids)), reverse=True)

    def filled(room: int) -> list[list[Encoded]]:
        micro_batches: list[list[Encoded]] = []
        longest = (0, 0)
        for item in ordered:
            grown = (max(longest[0], source_length(item)), max(longest[1], len(item.ids)))
            if not micro_batches or sum(grown) * (len(micro_batches[-1]) + 1) > room:
                micro_batches.append([])
                grown = (source_length(item), len(item.ids))
            micro_batches[-1].append(item)
            longest = grown
        return micro_batches

    return evenly(filled, micro_tokens)


def evenly(filled: Callable[[int], list[list[Encoded]]], micro_tokens: int) -> list[list[Encoded]]:
    """Return what `filled` makes of the least room that takes no more micro-batches than all of `micro_tokens`.

    The fullest micro-batch decides how much memory a step takes, and few long ones run faster than many short ones.
    """
    found = filled(micro_tokens)
    if len(found) <= 1:
        return found
    low, high = 0, micro_tokens
    while high - low > max(1, NEARLY_EVEN * micro_tokens):
        room = (low + high) // 2
        tried = filled(room)
        if len(tried) > len(found):
            low = room
        else:
            found, high = tried, room
    return found


def source_length(item: Encoded) -> int:
    """Return the tokens that the encoder of an encoder-decoder reads."""
    return 0 if item.source_ids is None else len(item.source_ids)

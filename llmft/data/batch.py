"""Documents laid end to end as tensors, without padding, and the cutting of a step's documents into micro-batches."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from llmft.data.encode import Encoded

# N flat tokens of a ragged batch, M rows of them that carry loss


@dataclass(frozen=True)
class Stream:
    """Documents end to end: int64 tokens, their positions from 0 in each document, and the documents' lengths in tokens."""

    tokens_N: Tensor
    positions_N: Tensor
    lengths: tuple[int, ...]

    def to(self, device: torch.device | str) -> "Stream":
        """Return the stream with its tensors on `device`."""
        return Stream(self.tokens_N.to(device), self.positions_N.to(device), self.lengths)


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


def cut(encoded: Sequence[Encoded], micro_tokens: int) -> list[list[Encoded]]:
    """Cut a step's documents into micro-batches of at most `micro_tokens` tokens; a longer document stands alone.

    Longest first, so that what does not fit into memory shows at once, and with documents of like length together.
    """
    micro_batches: list[list[Encoded]] = []
    room = 0
    for item in sorted(encoded, key=len, reverse=True):
        if not micro_batches or len(item) > room:
            micro_batches.append([])
            room = micro_tokens
        micro_batches[-1].append(item)
        room -= len(item)
    return micro_batches

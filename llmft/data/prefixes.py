"""Documents that begin alike, such as several questions on one text: what they share is laid down, and computed, once.

A batch becomes a forest of pieces: a piece's tokens follow those of its parent. Only tokens before all loss are shared, so that
what a row predicts never depends on whose row it is.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
import torch

from llmft.data.batch import Batch, Stream, collate_decoder, cut, evenly
from llmft.data.encode import Encoded

SHORTEST = 16
"""Tokens that are worth sharing: a piece costs a call of the attention kernel in every layer."""
LEAST_SAVED = 0.05
"""Share of a batch's tokens from which on pieces pay."""


class Piece(NamedTuple):
    """The tokens `start`:`stop` of a document, behind those of the piece `parent`; -1: there is none before it."""

    document: int
    start: int
    stop: int
    parent: int


def pieces_of(documents: Sequence[Encoded]) -> list[Piece]:
    """Cut documents into pieces, parents before their children; the last piece of each document bears its loss."""
    order = sorted(range(len(documents)), key=lambda place: documents[place].ids.tobytes())
    free = [int(np.argmax(each.loss_mask)) - 1 if each.loss_mask.any() else len(each.ids) - 1 for each in documents]
    found: list[Piece] = []

    def divide(group: list[int], start: int, parent: int) -> None:
        """Lay down a group of documents, in order, that share all tokens before `start`."""
        if len(group) == 1:
            found.append(Piece(group[0], start, len(documents[group[0]].ids), parent))
            return
        common = min(shared_tokens(documents[group[0]].ids, documents[group[-1]].ids), *(free[each] for each in group))
        if common - start >= SHORTEST:
            found.append(Piece(group[0], start, common, parent))
            start, parent = common, len(found) - 1
        # the two neighbours that share least go different ways
        limits = [
            min(shared_tokens(documents[one].ids, documents[two].ids), free[one], free[two]) for one, two in pairwise(group)
        ]
        if max(limits) - start < SHORTEST:
            for each in group:
                divide([each], start, parent)
            return
        place = int(np.argmin(limits)) + 1
        divide(group[:place], start, parent)
        divide(group[place:], start, parent)

    divide(order, 0, -1)
    return found


def shared_tokens(one: np.ndarray, two: np.ndarray) -> int:
    """Return how many tokens two documents begin with alike."""
    length = min(len(one), len(two))
    differs = np.flatnonzero(one[:length] != two[:length])
    return int(differs[0]) if len(differs) else length


def collate_shared(documents: Sequence[Encoded]) -> Batch:
    """Make a batch as `collate_decoder` does, with what documents share once where that saves enough."""
    pieces = pieces_of(documents) if len(documents) > 1 else []
    tokens = sum(piece.stop - piece.start for piece in pieces)
    if not pieces or tokens > (1 - LEAST_SAVED) * sum(len(each.ids) for each in documents):
        return collate_decoder(documents)
    rows, targets, start = [], [], 0
    parents = {piece.parent for piece in pieces}
    for place, piece in enumerate(pieces):
        if place not in parents:  # the end of a document
            document = documents[piece.document]
            bearing = np.flatnonzero(document.loss_mask[1:])
            rows.append(bearing - piece.start + start)
            targets.append(document.ids[bearing + 1])
        start += piece.stop - piece.start
    ids = np.concatenate([documents[piece.document].ids[piece.start : piece.stop] for piece in pieces])
    places = np.concatenate([np.arange(piece.start, piece.stop) for piece in pieces])
    loss_rows_M = torch.from_numpy(np.concatenate(rows).astype(np.int64))
    stream = Stream(
        tokens_N=torch.from_numpy(ids.astype(np.int64)),
        positions_N=torch.from_numpy(places),
        lengths=tuple(piece.stop - piece.start for piece in pieces),
        parents=tuple(piece.parent for piece in pieces),
    )
    return Batch(
        stream=stream,
        source=None,
        loss_rows_M=loss_rows_M,
        targets_M=torch.from_numpy(np.concatenate(targets).astype(np.int64)),
        row_ids=tuple(each.id for each in documents),
        units=len(loss_rows_M),
    )


def cut_shared(documents: Sequence[Encoded], micro_tokens: int) -> list[list[Encoded]]:
    """Cut a step's documents as `cut` does, those that begin alike together where that saves enough."""
    order = sorted(documents, key=lambda each: each.ids.tobytes())
    shared = [shared_tokens(one.ids, two.ids) for one, two in pairwise(order)]
    new = [len(item) - (alike if alike >= SHORTEST else 0) for item, alike in zip(order, [0, *shared], strict=True)]

    def filled(room: int) -> list[list[Encoded]]:
        micro_batches: list[list[Encoded]] = []
        left = 0
        for item, own in zip(order, new, strict=True):
            if not micro_batches or own > left:
                micro_batches.append([])
                left, own = room, len(item)
            micro_batches[-1].append(item)
            left -= own
        return micro_batches

    found = evenly(filled, micro_tokens)
    starts = list(accumulate(map(len, found[:-1]), initial=0))
    tokens = sum(new) + sum(len(order[start]) - new[start] for start in starts)
    if tokens > (1 - LEAST_SAVED) * sum(map(len, documents)):
        return cut(documents, micro_tokens)
    return sorted(found, key=lambda each: max(map(len, each)), reverse=True)


def with_twin(documents: Sequence[Encoded]) -> list[Encoded]:
    """Return documents, the first one twice, its last token another one: some that begin alike, to try sharing on."""
    ids = documents[0].ids.copy()
    ids[-1] = ids[0]
    return [*documents, replace(documents[0], ids=ids)]

"""The trial before step 1: the largest micro-batch goes forward and backward, and leaves nothing but a measured peak."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from llmft.data.encode import Encoded
from llmft.errors import DoesNotFit
from llmft.hardware.determinism import rng_state, set_rng_state
from llmft.hardware.gradients import clear_gradients
from llmft.hardware.memory import current_bytes, is_out_of_memory, peak_bytes, refused_beyond, release
from llmft.training.memory import SMALLER, with_moments

NEARLY = 1.1

Loss = Callable[[Sequence[Encoded]], Tensor]
Cut = Callable[[Sequence[Encoded], int], list[list[Encoded]]]


def fullest(lengths: np.ndarray, batch_size: int, micro_tokens: int) -> list[np.ndarray]:
    """Return places of documents (lengths in tokens) among which the dearest micro-batch is: one with the longest documents, one
    with as many tokens as any.

    Documents next to each other in length fill a micro-batch as full as a step's can, or fuller: an upper bound that costs a
    sort, not a look at every step.
    """
    ranked = np.argsort(-lengths, kind="stable")
    ends = np.concatenate([[0], np.cumsum(lengths[ranked])])
    starts = np.arange(len(ranked))
    stops = np.searchsorted(ends, ends[:-1] + micro_tokens, side="right") - 1
    stops = np.clip(stops, starts + 1, np.minimum(starts + batch_size, len(ranked)))
    start = int(np.argmax(ends[stops] - ends[starts]))
    return [ranked[:batch_size], ranked[start : stops[start]]]


def dearest(cut: Cut, batches: Sequence[Sequence[Encoded]], micro_tokens: int) -> list[list[Encoded]]:
    """Return the micro-batches to try: the one with the longest document, and the one with the most tokens if that has far more.

    A tenth more is within what is left free anyway (`MARGIN` in memory), and not worth the time.
    """
    first, *others = (filled(cut, batch, micro_tokens) for batch in batches)
    largest = max(others, key=lambda each: sum(map(len, each)), default=first)
    return [first] if sum(map(len, largest)) <= NEARLY * sum(map(len, first)) else [first, largest]


def filled(cut: Cut, documents: Sequence[Encoded], micro_tokens: int) -> list[Encoded]:
    """Return the first of some documents, as many as a micro-batch takes: what a step is cut into is even, and mostly less."""
    count = bisect_left(range(2, len(documents) + 1), 2, key=lambda count: len(cut(documents[:count], micro_tokens))) + 1
    return list(documents[:count])


def halved(cut: Cut, documents: Sequence[Encoded], micro_tokens: int) -> int | None:
    """Return half of `micro_tokens`, or less, until it cuts documents finer; None where each stands alone already."""
    pieces = len(cut(documents, micro_tokens))
    if pieces == len(documents):
        return None
    while len(cut(documents, micro_tokens)) == pieces:
        micro_tokens //= 2
    return max(1, micro_tokens)


def send(loss: Loss, micro_batch: Sequence[Encoded], device: torch.device) -> int:
    """Send a micro-batch forward and backward; return the most that was in use, as far as two looks tell."""
    value = loss(micro_batch)
    forward = current_bytes(device)  # all that the backward pass reads is there now
    value.backward()
    return max(forward, current_bytes(device))


def try_out(
    loss: Loss, weights: Sequence[nn.Parameter], micro_batches: Sequence[Sequence[Encoded]], room: int, device: torch.device
) -> int | None:
    """Send micro-batches forward and backward; return by how many bytes memory grew at most, None where it ran out.

    Weights are not touched, gradients are cleared, and chance is put back: the run that follows is the same to the bit. On a
    CPU no more than `room` bytes are taken: there the kernel would kill, not refuse.
    """
    random = rng_state()
    before, high, most = current_bytes(device), peak_bytes(device), 0
    try:
        with refused_beyond(device, room):
            most = max(send(loss, micro_batch, device) for micro_batch in micro_batches)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        most = 0
    finally:
        clear_gradients(weights)
        set_rng_state(*random)
    peak = peak_bytes(device)
    if not most:
        release(device)
        return None
    return max(0, max(most, peak if peak > high else 0) - before)  # a peak of old, from loading, says nothing


def fitting(
    loss: Loss,
    cut: Cut,
    weights: Sequence[nn.Parameter],
    documents: Callable[[list[int]], list[Encoded]],
    lengths: np.ndarray,
    batch_size: int,
    micro_tokens: int,
    state_bytes: int,
    free: int,
    device: torch.device,
) -> tuple[int, int]:
    """Return the largest budget of a micro-batch, from `micro_tokens` downwards by halves, that fits, and what its trial took.

    On a GPU it fits if the trial ran; on a CPU it has to leave room for what comes after, too. `documents` gives those at some
    places of `lengths`. Raises DoesNotFit where documents do not even fit one at a time.
    """
    while True:
        batches = [documents(places.tolist()) for places in fullest(lengths, batch_size, micro_tokens)]
        micro_batches = dearest(cut, batches, micro_tokens)
        taken = try_out(loss, weights, micro_batches, free, device)
        if taken is not None and (device.type == "cuda" or with_moments(taken, state_bytes) <= free):
            return micro_tokens, taken
        smaller = halved(cut, list(chain.from_iterable(micro_batches)), micro_tokens)
        if smaller is None:
            longest = max(len(document) for document in micro_batches[0])
            took = "more than there is" if taken is None else f"{with_moments(taken, state_bytes) / 2**30:.2g} GiB"
            raise DoesNotFit(
                f"training on a row of {longest} tokens takes {took} in a trial, {free / 2**30:.2g} GiB are free. {SMALLER}"
            )
        micro_tokens = smaller

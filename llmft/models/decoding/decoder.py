"""Texts that a decoder writes after their prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from llmft.models.attention import UnsupportedAttention, attention
from llmft.models.decoding.attend import KEPT_KEYS, Masks, beams_over_both, causal, next_tokens
from llmft.models.decoding.buffers import Buffer, Kept, Layer, moved
from llmft.models.decoding.flat_pass import Flat, flat_of, flat_scores
from llmft.models.padded import logits_of_rows
from llmft.runs import signals

# S prompts, R = S * beams texts, N flat tokens of a pass, V vocabulary, H query heads, K key/value heads, D head width

PASS_TOKENS = {"cpu": 2048}  # tokens of prompts read in one pass: more make products no faster and take more memory
OTHER_PASS_TOKENS = 16384
PART = 16
"""Texts, on processors, of which kept keys are read up to the end of the longest: the time goes with the number of keys."""


@dataclass(frozen=True)
class Piece:
    """Tokens of a prompt that one pass reads: where its keys go, how many of the prompt were read before, whether it ends there."""

    row: int
    past: int
    tokens: Sequence[int]
    last: bool


class Prompts:
    """Up to `rows` prompts and, for each, `beams` texts that go on from it; each prompt is read once and kept once.

    Tokens of all texts lie end to end in a batch of one, each with its own position, so nothing is padded. Without beams a
    text's keys follow its prompt's; with beams they have buffers of their own. `shared` is what all prompts begin with: it is
    read once for all. flat: the layers to compute with, None: the model's own.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        rows: int,
        width: int,
        new_tokens: int,
        beams: int = 1,
        shared: Sequence[int] = (),
        flat: Flat | None = None,
    ) -> None:
        self.model, self.rows, self.beams, self.shared = model, rows, beams, list(shared)
        self.width, self.new_tokens = width, new_tokens
        self.refills = beams == 1
        self.prompts: list[int] = []  # tokens of each prompt in use
        self.written: list[int] = []  # tokens after it whose keys are kept
        self.pieces: list[Piece] = []  # of the pass under way; empty while texts are continued
        self.read_shared = False
        self.windows: list[int | None] = []  # of each attention call of the last pass
        self.rows_R = self.lengths_R = torch.empty(
            0, dtype=torch.long
        )  # rows in use and their lengths, while texts are continued
        self.triangles: Masks = {}
        self.masks: dict[int | None, tuple[list[tuple[slice, Tensor]], Tensor | None]] = {}
        self.slots: dict[tuple[int, int], Tensor] = {}  # of the tokens of a step, by number of heads and width of a buffer
        # on a GPU the layers of training are compiled first, which a few texts do not pay for
        self.flat = flat_of(model) if flat is None and model.device.type == "cpu" else flat
        self.cache = Kept(self.write, self.longest)

    @property
    def lengths(self) -> list[int]:
        """Tokens kept of each prompt and what follows it."""
        return [prompt + written for prompt, written in zip(self.prompts, self.written, strict=True)]

    def longest(self) -> int:
        """Return the most tokens that are kept of a prompt and what follows it."""
        return max(self.lengths, default=0)

    def begin(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Read more prompts and return the scores (n, V) of the token after each."""
        if self.shared and not self.read_shared:
            self.forward([Piece(0, 0, self.shared, last=False)])
            every = torch.arange(1, self.rows, device=self.model.device)
            for layer in self.cache.layers:
                if layer.source is not None:
                    layer.source.move(torch.zeros_like(every), every, len(self.shared))
            self.read_shared = True
        limit = PASS_TOKENS.get(self.model.device.type, OTHER_PASS_TOKENS)
        first, logits = len(self.prompts), []
        passes: list[list[Piece]] = [[]]
        room = limit
        for row, prompt in enumerate(prompts, first):
            past = len(self.shared)
            while past < len(prompt):
                piece = Piece(row, past, prompt[past : past + room], last=past + room >= len(prompt))
                passes[-1].append(piece)
                past, room = past + len(piece.tokens), room - len(piece.tokens)
                if not room:
                    passes.append([])
                    room = limit
        if not passes[-1]:
            del passes[-1]
        for pieces in passes:
            signals.check()
            logits.append(self.forward(pieces))
        self.prompts += [len(prompt) for prompt in prompts]
        self.written += [0] * len(prompts)
        return torch.cat(logits)

    def forward(self, pieces: list[Piece]) -> Tensor:
        """Read one pass of pieces; return the scores after those that end a prompt."""
        self.pieces, self.triangles = pieces, {}
        try:
            device = self.model.device
            flat = [token for piece in pieces for token in piece.tokens]
            positions = [piece.past + place for piece in pieces for place in range(len(piece.tokens))]
            ends, total = [], 0
            for piece in pieces:
                total += len(piece.tokens)
                ends += [total - 1] * piece.last
            rows = torch.tensor(ends, dtype=torch.long, device=device)
            return self.scores(torch.tensor(flat, device=device), torch.tensor(positions, device=device), rows)
        finally:
            self.pieces = []

    def step(self, tokens_R: Tensor) -> Tensor:
        """Append a token to each text and return the scores (R, V) of the next."""
        device = self.model.device
        self.lengths_R = torch.tensor(self.lengths, device=device)
        self.masks, self.slots = {}, {}
        scores_RV = self.scores(tokens_R, self.lengths_R.repeat_interleave(self.beams), None)
        self.written = [count + 1 for count in self.written]
        return scores_RV

    def scores(self, tokens_N: Tensor, positions_N: Tensor, rows: Tensor | None) -> Tensor:
        """Send a pass of tokens through the model; return the scores after those at `rows`, None: all."""
        self.windows = []
        if self.flat is not None:
            return flat_scores(self, self.model, self.flat, tokens_N, positions_N, rows, self.dtype()).float()
        inputs = {"input_ids": tokens_N[None], "position_ids": positions_N[None], "past_key_values": self.cache}
        inputs |= {"use_cache": True, "texts": self}
        with attention(self.model, KEPT_KEYS):
            if rows is None:
                return self.model(**inputs).logits[0].float()
            return logits_of_rows(self.model, inputs, rows).float()

    def dtype(self) -> torch.dtype:
        """Return the format that products are computed in."""
        device = self.model.device.type
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.model.dtype

    def keep(self, order: list[int]) -> None:
        """Go on with these prompts and their texts only, in this order."""
        stop = max((self.lengths[row] if self.beams == 1 else self.prompts[row] for row in order), default=0)
        sources, targets = moved(order, self.model.device)
        texts, places = moved([row * self.beams + beam for row in order for beam in range(self.beams)], self.model.device)
        for layer in self.cache.layers:
            if layer.source is not None:
                layer.source.move(sources, targets, stop, len(self.shared))
            if layer.own is not None:
                layer.own.move(texts, places, max(self.written, default=0))
        self.prompts = [self.prompts[row] for row in order]
        self.written = [self.written[row] for row in order]

    def follow(self, parents: list[int]) -> None:
        """Let text i go on from what text `parents[i]` has written, of the same prompt."""
        texts, places = moved(parents, self.model.device)
        for layer in self.cache.layers:
            if layer.own is not None:
                layer.own.move(texts, places, max(self.written, default=0))

    def write(self, layer: Layer, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keep keys and values (1, K, N, D) of the pass where they belong; return the buffers."""
        if layer.source is None:
            layer.source = Buffer(self.rows, self.width if self.beams > 1 else self.width + self.new_tokens, keys, values)
        source = layer.source
        if self.pieces:
            start = 0
            for piece in self.pieces:
                stop, places = start + len(piece.tokens), slice(piece.past, piece.past + len(piece.tokens))
                source.keys[piece.row, :, places] = keys[0, :, start:stop]
                source.values[piece.row, :, places] = values[0, :, start:stop]
                start = stop
        elif self.beams == 1:
            kind = keys.shape[1], source.keys.shape[2]
            if kind not in self.slots:
                self.slots[kind] = source.slots(self.lengths_R)
            source.append(self.slots[kind], keys[0], values[0])
        else:
            if layer.own is None:
                layer.own = Buffer(self.rows * self.beams, self.new_tokens, keys, values)
            layer.own.keys[: keys.shape[2], :, self.written[0]] = keys[0].transpose(0, 1)
            layer.own.values[: keys.shape[2], :, self.written[0]] = values[0].transpose(0, 1)
        return source.keys, source.values

    def attend(
        self,
        module: torch.nn.Module,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None,
        scale: float,
        window: int | None,
        bias: Tensor | None,
    ) -> Tensor:
        """Attention of the pass's tokens (1, H, N, D), whose keys were just kept, as (1, N, H, D): for transformers' layers."""
        if mask is not None or bias is not None:
            raise UnsupportedAttention("attention of a decoder with a mask or a bias of its own")
        layer = self.cache.layers[module.layer_idx]  # type: ignore[index]
        return self.over_kept(layer, query[0], scale, window, ends=False)[None]

    def read(
        self, place: int, query_QHE: Tensor, key_NKE: Tensor, value_NKE: Tensor, scale: float, window: int | None, ends: bool
    ) -> Tensor:
        """Keep what layer `place` has new, and return what the queries read (Q, H, E). ends: only a prompt's last token asks."""
        self.cache.update(key_NKE.transpose(0, 1)[None], value_NKE.transpose(0, 1)[None], place)
        return self.over_kept(self.cache.layers[place], query_QHE.transpose(0, 1), scale, window, ends)

    def over_kept(self, layer: Layer, query_HND: Tensor, scale: float, window: int | None, ends: bool) -> Tensor:
        """Attention of a pass's queries, each over its own text, as (N, H, D)."""
        self.windows.append(window)
        assert layer.source is not None
        keys, values = layer.source.keys, layer.source.values
        query_HND = query_HND.to(values.dtype)
        if self.pieces:
            start, found = 0, []
            for piece in self.pieces:
                stop, total = start + (piece.last if ends else len(piece.tokens)), piece.past + len(piece.tokens)
                if stop > start:
                    seen = (keys[piece.row, :, :total], values[piece.row, :, :total])
                    found.append(causal(query_HND[:, start:stop], *seen, scale, window, self.triangles))
                start = stop
            return torch.cat(found) if found else query_HND.transpose(0, 1)
        query_RHD, used = query_HND.transpose(0, 1), len(self.prompts)
        parts, own_mask = self.masks_of(window, values)
        if self.beams == 1:
            found = []
            for rows, mask in parts:
                seen = (keys[rows, :, : mask.shape[-1]], values[rows, :, : mask.shape[-1]])
                found.append(next_tokens(query_RHD[rows], *seen, mask, scale))
            return found[0] if len(found) == 1 else torch.cat(found)
        assert layer.own is not None
        ((_, before),) = parts
        total, stop = before.shape[-1], self.written[0] + 1
        source = (keys[:used, :, :total], values[:used, :, :total], before)
        written = (layer.own.keys[: used * self.beams, :, :stop], layer.own.values[: used * self.beams, :, :stop], own_mask)
        return beams_over_both(query_RHD, source, written, scale)

    def masks_of(self, window: int | None, like: Tensor) -> tuple[list[tuple[slice, Tensor]], Tensor | None]:
        """Return what is added to scores: for the kept keys, by parts of the rows; with beams for a text's own, if anything is.

        A part's keys are read as far as its longest text goes.
        """
        if window not in self.masks:
            ends = self.lengths if self.beams == 1 else [prompt - 1 for prompt in self.prompts]
            ends_R = self.lengths_R if self.beams == 1 else torch.tensor(ends, device=like.device)
            apart = len(ends)
            if self.beams == 1 and like.device.type == "cpu":
                apart = max(PART, torch.get_num_threads())
            parts = []
            for start in range(0, len(ends), apart):
                rows = slice(start, min(start + apart, len(ends)))
                places = torch.arange(max(ends[rows]) + 1, device=like.device)
                unseen = places > ends_R[rows, None]
                if window is not None:
                    unseen |= places <= self.lengths_R[rows, None] - window
                mask = torch.zeros(unseen.shape, dtype=like.dtype, device=like.device).masked_fill_(unseen, float("-inf"))
                parts.append((rows, mask[:, None, None]))
            own = None
            if window is not None and self.beams > 1 and self.written[0] >= window:
                steps = torch.arange(self.written[0] + 1, device=like.device)
                own = torch.zeros(len(steps), dtype=like.dtype, device=like.device)
                own.masked_fill_(steps <= self.written[0] - window, float("-inf"))
            self.masks[window] = (parts, own)
        return self.masks[window]

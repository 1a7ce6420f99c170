"""Texts that an encoder-decoder writes about its sources."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from llmft.data.batch import pad_stream, stream_of
from llmft.models.attention import UnsupportedAttention, attention
from llmft.models.decoding.attend import KEPT_KEYS, beams_over_source, next_tokens
from llmft.models.decoding.buffers import Buffer, Kept, Layer, moved
from llmft.models.decoding.decoder import OTHER_PASS_TOKENS
from llmft.runs import signals

PASS_TOKENS = {"cpu": 1024}  # of sources that the encoder reads in one pass, filled up to the longest

# S sources, T tokens of the longest, R = S * beams texts, D model width, V vocabulary, H heads


class Pairs:
    """Up to `rows` sources and, for each, `beams` texts; the encoder and its keys are computed once and kept once per source.

    All texts begin together: these architectures count a decoder's positions from the side, alike for all.
    """

    refills = False

    def __init__(self, model: PreTrainedModel, rows: int, new_tokens: int, start: int, pad: int, beams: int = 1) -> None:
        self.model, self.rows, self.beams, self.new_tokens, self.start, self.pad = model, rows, beams, new_tokens, start, pad
        self.sources = 0
        self.written = 0  # decoder tokens whose keys are kept, the start token among them
        self.windows: list[int | None] = []

    def begin(self, sources: Sequence[Sequence[int]]) -> Tensor:
        """Read a batch of sources, in the place of one before; return the scores (S, V) of the first token after the start token."""
        self.sources, self.written = len(sources), 0
        self.own, self.cross = Kept(self.write, self.length), Kept(self.write_source, self.length)
        self.cache = EncoderDecoderCache(self.own, self.cross)
        self.states, mask_ST = self.encode(sources)
        self.mask = torch.zeros(mask_ST.shape, dtype=self.states.dtype, device=mask_ST.device)
        self.mask = self.mask.masked_fill_(mask_ST == 0, float("-inf"))[:, None, None]
        logits = self.forward(torch.full((len(sources),), self.start, device=self.model.device), beams=1)
        every = torch.arange(len(sources) * self.beams, device=self.model.device)
        for layer in self.own.layers:  # the start token's keys stand in the first rows: each text gets its source's
            if layer.own is not None:
                layer.own.move(every // self.beams, every, 1)
        return logits

    def length(self) -> int:
        """Return how many tokens of each text are kept."""
        return self.written

    def encode(self, sources: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return the encoder's states (S, T, D), zero where a source has ended, and the mask that tells where."""
        limit = PASS_TOKENS.get(self.model.device.type, OTHER_PASS_TOKENS)
        width = max(len(source) for source in sources)
        states, masks, start = [], [], 0
        while start < len(sources):
            signals.check()
            stop = start + max(1, limit // max(1, len(sources[start])))  # longest first
            stream = stream_of([np.array(source, np.int32) for source in sources[start:stop]]).to(self.model.device)
            tokens, mask = pad_stream(stream, self.pad)
            found = self.model.get_encoder()(input_ids=tokens, attention_mask=mask, return_dict=True).last_hidden_state
            found = found * mask[:, :, None].to(found.dtype)
            states.append(torch.nn.functional.pad(found, (0, 0, 0, width - found.shape[1])))
            masks.append(torch.nn.functional.pad(mask, (0, width - mask.shape[1])))
            start = stop
        return torch.cat(states), torch.cat(masks)

    def forward(self, tokens_R: Tensor, beams: int) -> Tensor:
        self.windows = []
        self.per_source = beams
        with attention(self.model, KEPT_KEYS):
            logits = self.model(
                encoder_outputs=BaseModelOutput(last_hidden_state=self.states),
                attention_mask=self.mask,
                decoder_input_ids=tokens_R[:, None],
                past_key_values=self.cache,
                use_cache=True,
                texts=self,
            ).logits[:, -1]
        self.written += 1
        return logits.float()

    def step(self, tokens_R: Tensor) -> Tensor:
        """Append a token to each text and return the scores (R, V) of the next."""
        return self.forward(tokens_R, self.beams)

    def keep(self, order: list[int]) -> None:
        """Go on with these sources and their texts only, in this order."""
        self.follow([row * self.beams + beam for row in order for beam in range(self.beams)])
        sources, targets = moved(order, self.model.device)
        for layer in self.cross.layers:
            assert layer.source is not None
            layer.source.move(sources, targets, layer.source.keys.shape[2])
            layer.keys, layer.values = layer.source.keys[: len(order)], layer.source.values[: len(order)]
        self.mask[targets] = self.mask[sources]
        self.sources, self.mask, self.states = len(order), self.mask[: len(order)], self.states[: len(order)]

    def follow(self, parents: list[int]) -> None:
        """Let text i go on from what text `parents[i]` has written, of the same source."""
        texts, places = moved(parents, self.model.device)
        for layer in self.own.layers:
            if layer.own is not None:
                layer.own.move(texts, places, self.written)

    def write(self, layer: Layer, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keep keys and values (R, H, 1, D) of the new tokens; return those of all tokens so far."""
        if layer.own is None:
            layer.own = Buffer(self.rows * self.beams, self.new_tokens, keys, values)
        layer.own.keys[: len(keys), :, self.written] = keys[:, :, 0]
        layer.own.values[: len(keys), :, self.written] = values[:, :, 0]
        seen = slice(0, self.written + 1)
        return layer.own.keys[: len(keys), :, seen], layer.own.values[: len(keys), :, seen]

    def write_source(self, layer: Layer, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keep keys and values (S, H, T, D) of the sources; models ask for them under these names from then on."""
        layer.source = Buffer(len(keys), keys.shape[2], keys, values)
        layer.source.keys[:], layer.source.values[:] = keys, values
        layer.keys, layer.values = layer.source.keys, layer.source.values
        return layer.keys, layer.values

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
        """Attention of one token of each text (R, H, 1, D) over its text, or over its source where a mask comes, as (R, 1, H, D)."""
        if query.shape[2] != 1 or window is not None:
            raise UnsupportedAttention("attention of more than one new token, or within a window")
        query_RHD = query[:, :, 0].to(values.dtype)
        if bias is not None:  # T5: none for sources, but zeros come
            mask = bias if mask is None else mask
            mask = mask.to(values.dtype)
        if len(keys) != len(query):
            return beams_over_source(query_RHD, keys, values, mask, scale)[:, None]
        return next_tokens(query_RHD, keys, values, mask, scale)[:, None]

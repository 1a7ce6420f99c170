"""Decoding by transformers' own `generate`, in batches: for what our own search does not cover."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteria

from llmft.data.batch import pad_stream, stream_of
from llmft.hardware.determinism import rng_state, set_rng_state
from llmft.models.family import Family
from llmft.models.load import Pretrained
from llmft.runs import signals


class SignalCheck(StoppingCriteria):
    """Looks for a stop signal at each token; it never ends a text by itself."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **options: object) -> torch.BoolTensor:
        signals.check()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)  # type: ignore[return-value]


class PlainSearch:
    """Writes a text for each of `waiting` (its place and source), `rows` side by side; sampled ones by torch's own chance."""

    def __init__(
        self,
        pretrained: Pretrained,
        config: GenerationConfig,
        waiting: Sequence[tuple[int, Sequence[int]]],
        rows: int,
        seed: int,
    ) -> None:
        self.pretrained, self.config, self.waiting, self.rows = pretrained, config, list(waiting), rows

    @property
    def busy(self) -> bool:
        """Whether there is anything left to write."""
        return bool(self.waiting)

    def advance(self) -> list[tuple[int, list[int]]]:
        """Write the next batch and return places and tokens; chance stays where it was if it fails."""
        batch, before = self.waiting[: self.rows], rng_state()
        decode = answer if self.pretrained.family is Family.encoder_decoder else proceed
        try:
            found = decode(self.pretrained.model, [source for _, source in batch], self.config)
        except RuntimeError:
            set_rng_state(*before)
            raise
        self.waiting = self.waiting[self.rows :]
        return [(place, ids) for (place, _), ids in zip(batch, found, strict=True)]


def proceed(model: PreTrainedModel, prompts: Sequence[Sequence[int]], config: GenerationConfig) -> list[list[int]]:
    """Decode what follows one batch of prompts, padded on the left so that all end at the same place."""
    width = max(len(prompt) for prompt in prompts)
    pad = config.pad_token_id
    tokens = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    return write(model, tokens, mask, config, width)


def answer(model: PreTrainedModel, sources: Sequence[Sequence[int]], config: GenerationConfig) -> list[list[int]]:
    """Decode what an encoder-decoder writes after reading one batch of sources."""
    stream = stream_of([np.array(source, np.int32) for source in sources]).to(model.device)
    tokens, mask = pad_stream(stream, config.pad_token_id)
    return write(model, tokens, mask, config, given=1)  # the start token


def write(model: PreTrainedModel, tokens: Tensor, mask: Tensor, config: GenerationConfig, given: int) -> list[list[int]]:
    """Run transformers' own decoding and return the rows without their `given` first tokens."""
    output = model.generate(  # type: ignore[operator]
        input_ids=tokens, attention_mask=mask, generation_config=config, stopping_criteria=[SignalCheck()]
    )
    return [row[given:].tolist() for row in output]

"""Tiny models that write, and what transformers' own `generate` makes of each source alone."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    GenerationConfig,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from llmft.models import generate as generation
from llmft.models.family import Family
from llmft.models.load import Pretrained

SMALL = {"vocab_size": 400, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 4, "num_key_value_heads": 2}
MADE = {
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=6)),  # looks back 6 tokens
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL)),  # biases
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SMALL, head_dim=8)),  # norms of heads
}
LENGTHS = (7, 3, 19, 1, 12, 4, 30, 2, 7, 5, 9)


@pytest.fixture
def open_writer(open_tiny, loud: Callable[[PreTrainedModel], PreTrainedModel]) -> Callable[[str], Pretrained]:
    """Load a tiny model by name, or make one of MADE."""

    def load(name: str) -> Pretrained:
        if name not in MADE:
            return open_tiny(name)
        torch.manual_seed(0)
        return Pretrained(loud(MADE[name]()), None, Family.decoder, Path(name))

    return load


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be written by transformers' `generate` behind our back."""

    def refuse(*given: object, **options: object) -> None:
        raise AssertionError("transformers was asked to write")

    monkeypatch.setattr(generation, "PlainSearch", refuse)


@pytest.fixture
def sources_for() -> Callable[[Pretrained], list[list[int]]]:
    """Random sources of many lengths; those of encoder-decoders close with the end token."""

    def make(pretrained: Pretrained) -> list[list[int]]:
        random = np.random.default_rng(1)
        pair = pretrained.family is Family.encoder_decoder
        ending = [pretrained.model.config.eos_token_id] if pair else []
        limit = min(pretrained.model.config.vocab_size, 200 if pair else 300)
        return [random.integers(4, limit, length).tolist() + ending for length in LENGTHS]

    return make


@pytest.fixture
def reference() -> Callable[[Pretrained, Sequence[Sequence[int]], GenerationConfig], list[list[int]]]:
    """What transformers writes about each source alone, without padding: up to its first end token, which is left out."""

    def write(pretrained: Pretrained, sources: Sequence[Sequence[int]], config: GenerationConfig) -> list[list[int]]:
        model, found = pretrained.model, []
        given = 1 + (config.forced_bos_token_id is not None)
        own, model.generation_config = model.generation_config, GenerationConfig()
        for source in sources:
            ids = torch.tensor([source])
            with torch.no_grad():
                row = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)[0].tolist()
            row = row[given:] if pretrained.family is Family.encoder_decoder else row[len(source) :]
            end = next((place for place, token in enumerate(row) if token in config.eos_token_id), len(row))
            found.append(row[:end])
        model.generation_config = own
        return found

    return write

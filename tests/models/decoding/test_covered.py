"""Who writes: our own search where it was seen to agree with the model, transformers' `generate` everywhere else."""

from pathlib import Path

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from llmft.config.schema import Generation
from llmft.models.decoding.attend import KEPT_KEYS, kept_keys_attention
from llmft.models.decoding.covered import covered, reads_all
from llmft.models.family import Family
from llmft.models.generate import NONE, generate, generation_config
from llmft.models.load import Pretrained

SMALL = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
MADE = {
    "alibi": lambda: BloomForCausalLM(BloomConfig(vocab_size=300, hidden_size=32, n_layer=2, n_head=4)),
    "capped scores": lambda: Gemma2ForCausalLM(Gemma2Config(**SMALL, intermediate_size=64, head_dim=8)),
    "sinks": lambda: GptOssForCausalLM(
        GptOssConfig(**SMALL, intermediate_size=32, head_dim=8, num_local_experts=2, num_experts_per_tok=1)
    ),
    "states": lambda: MambaForCausalLM(MambaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2, state_size=4)),
    "positions by the longest": lambda: LlamaForCausalLM(
        LlamaConfig(**SMALL, intermediate_size=64, rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0})
    ),
}


@pytest.fixture
def pretrained_of(loud):
    def make(kind):
        torch.manual_seed(0)
        return Pretrained(loud(MADE[kind]()), None, Family.decoder, Path(kind))

    return make


def settings_of(pretrained, **settings):
    return generation_config(Generation(max_new_tokens=6, **settings), pretrained, [299], 0)


@pytest.mark.parametrize("kind", MADE)
def test_what_it_does_not_cover_transformers_writes(pretrained_of, sources_for, reference, kind):
    pretrained = pretrained_of(kind)
    config, sources = settings_of(pretrained), sources_for(pretrained)[:4]
    assert not covered(pretrained, config, sources, torch.float32, NONE)
    found = dict(generate(pretrained, sources, config, 1, torch.float32))
    assert [found[place].ids for place in range(4)] == reference(pretrained, sources, config)


def test_settings_it_does_not_read(open_writer):
    pretrained = open_writer("llama")
    assert reads_all(settings_of(pretrained, repetition_penalty=1.2, num_beams=3))
    for name, value in {"min_new_tokens": 3, "typical_p": 0.9, "stop_strings": ["a"], "renormalize_logits": True}.items():
        config = settings_of(pretrained)
        config.update(**{name: value})
        assert not reads_all(config)
    assert not reads_all(settings_of(pretrained, num_beams=2, temperature=1.0))  # beams that sample


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_a_search_that_computes_something_else_is_not_taken(open_writer, sources_for, monkeypatch, name):
    """Attention over keys that are a little off: the comparison notices, and remembers per model."""
    pretrained = open_writer(name)
    config, sources = settings_of(pretrained), sources_for(pretrained)
    attend = kept_keys_attention

    def off(layer, query, key, *rest, **options):
        return attend(layer, query * 1.05, key, *rest, **options)

    with monkeypatch.context() as patch, torch.no_grad():
        patch.setitem(ALL_ATTENTION_FUNCTIONS, KEPT_KEYS, off)
        assert not covered(pretrained, config, sources, torch.float32, NONE)
    with torch.no_grad():
        assert not covered(pretrained, config, sources, torch.float32, NONE)  # asked once
        assert covered(open_writer(name), config, sources, torch.float32, NONE)


def test_a_window_that_attention_is_not_told_of(open_writer, sources_for, monkeypatch):
    """Within the few tokens compared a window may cut nothing, so each layer that has one has to name it."""
    attend = kept_keys_attention

    def silent(*given, sliding_window=None, **options):
        return attend(*given, **options)

    monkeypatch.setattr("llmft.models.decoding.decoder.flat_of", lambda model: None)  # by transformers' layers
    with torch.no_grad():
        for attention, window, expected in ((attend, 1000, True), (silent, 1000, False), (silent, None, True)):
            monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, KEPT_KEYS, attention)
            pretrained = open_writer("mistral")
            pretrained.model.config.sliding_window = window
            found = covered(pretrained, settings_of(pretrained), sources_for(pretrained), torch.float32, NONE)
            assert found is expected

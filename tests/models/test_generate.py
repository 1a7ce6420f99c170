"""Greedy decoding in batches against transformers' own, one prompt at a time."""

import os
import signal

import numpy as np
import pytest
import torch

from llmft.config.schema import Generation
from llmft.errors import Stopped
from llmft.models.generate import Continuation, SignalCheck, generate, generation_config, until_end
from llmft.runs import signals

NEW_TOKENS = 12


@pytest.fixture
def prompts():
    random = np.random.default_rng(1)
    return [random.integers(3, 300, length).tolist() for length in (7, 3, 19, 1, 7, 12, 4, 30, 2, 7, 5, 9, 14, 3, 6, 11, 8)]


def one_by_one(model, prompts, end_id, pad_id, **options):
    """What transformers writes for each prompt alone: no padding, its own end handling."""
    found = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        row = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=end_id,
            pad_token_id=pad_id,
            **options,
        )[0, len(prompt) :].tolist()
        found.append(row)
    return found


def common_token(rows):
    """A token that ends some of the rows early and leaves others whole."""
    ids, counts = np.unique([token for row in rows for token in set(row[2:])], return_counts=True)
    return int(ids[np.argmax(counts)])


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2"])
def test_greedy_is_that_of_transformers_for_every_batch_size(open_tiny, prompts, name):
    model = open_tiny(name).model
    end_id = common_token(one_by_one(model, prompts, None, 0))
    rows = one_by_one(model, prompts, end_id, 0)
    expected = [Continuation(row[:-1], "stop") if row[-1] == end_id else Continuation(row, "length") for row in rows]
    assert {each.finished for each in expected} == {"stop", "length"}
    for batch_size in (1, 3, 16):
        for pad_id in (0, end_id):  # padding with the end token itself is usual
            generation = Generation(max_new_tokens=NEW_TOKENS, batch_size=batch_size)
            found = list(generate(model, prompts, generation, [end_id], pad_id, torch.float32))
            assert sorted(place for place, _ in found) == list(range(len(prompts)))
            assert [each for _, each in sorted(found, key=lambda pair: pair[0])] == expected


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 2}], ids=str)
def test_settings_reach_transformers(open_tiny, prompts, options):
    model = open_tiny("llama").model
    greedy = one_by_one(model, prompts, [2], 2)
    expected = one_by_one(model, prompts, [2], 2, **options)
    assert expected != greedy
    generation = Generation(max_new_tokens=NEW_TOKENS, batch_size=1, **options)
    found = dict(generate(model, prompts, generation, [2], 2, torch.float32))
    assert [found[place].ids for place in range(len(prompts))] == [until_end(row, {2}).ids for row in expected]


def test_sampling_follows_the_seed(open_tiny, prompts):
    model = open_tiny("llama").model
    generation = Generation(max_new_tokens=NEW_TOKENS, temperature=1.0, top_k=20)

    def sample(seed):
        torch.manual_seed(seed)
        return dict(generate(model, prompts, generation, [2], 2, torch.float32))

    assert sample(0) == sample(0) != sample(1)


def test_settings_saved_with_the_model_do_not_leak_in(open_tiny, prompts):
    """Qwen3's folder asks for sampling, others for a penalty; what was configured here is what counts."""
    model = open_tiny("llama").model
    generation = Generation(max_new_tokens=NEW_TOKENS)
    before = dict(generate(model, prompts, generation, [2], 2, torch.float32))
    model.generation_config.update(
        do_sample=True, temperature=5.0, top_k=3, num_beams=3, repetition_penalty=3.0, no_repeat_ngram_size=1, max_length=5
    )
    assert dict(generate(model, prompts, generation, [2], 2, torch.float32)) == before


def test_longest_prompts_come_first(open_tiny, prompts):
    model = open_tiny("llama").model
    found = [place for place, _ in generate(model, prompts, Generation(max_new_tokens=1, batch_size=4), [2], 2, torch.float32)]
    lengths = [len(prompts[place]) for place in found]
    assert lengths == sorted(lengths, reverse=True)


def test_training_mode_is_put_back(open_tiny, prompts):
    model = open_tiny("gpt2").model.train()
    generation = Generation(max_new_tokens=4)
    first, second = (list(generate(model, prompts[:3], generation, [0], 0, torch.float32)) for _ in range(2))
    assert first == second  # no dropout while it decodes
    assert model.training


def test_until_end():
    assert until_end([5, 6, 7], {1, 2}) == Continuation([5, 6, 7], "length")
    assert until_end([5, 2, 7, 1], {1, 2}) == Continuation([5], "stop")
    assert until_end([1], {1}) == Continuation([], "stop")


def test_generation_config_says_what_was_asked():
    config = generation_config(Generation(max_new_tokens=9, temperature=0.7, top_p=0.9), [2, 5], 3)
    found = {name: getattr(config, name) for name in ("max_new_tokens", "do_sample", "temperature", "top_p", "top_k")}
    assert found == {"max_new_tokens": 9, "do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 0}
    assert (config.eos_token_id, config.pad_token_id) == ([2, 5], 3)
    assert generation_config(Generation(), [2], 2).do_sample is False


def test_a_signal_stops_at_the_next_token(open_tiny, prompts, monkeypatch):
    monkeypatch.setattr(signals, "_stopping", False)
    model = open_tiny("llama").model
    calls = []
    check = SignalCheck.__call__

    def counted(self, *args, **options):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGUSR1)
        return check(self, *args, **options)

    monkeypatch.setattr(SignalCheck, "__call__", counted)
    before = signal.signal(signal.SIGUSR1, signals._receive)  # what `install` does, without its watching thread
    try:
        with pytest.raises(Stopped) as stopped:
            list(generate(model, prompts, Generation(max_new_tokens=100, batch_size=16), [], 2, torch.float32))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert stopped.value.exit_code == 75
    assert len(calls) in (3, 4)

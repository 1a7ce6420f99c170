"""Decoding in batches against transformers' own, one prompt or source at a time."""

import errno
import mmap
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from llmft.config.schema import Generation
from llmft.errors import DoesNotFit, Stopped
from llmft.models.decoding.decoder import Prompts
from llmft.models.generate import Continuation, generate, generation_config, until_end
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


def decoded(pretrained, sources, generation, end_ids=(2,), pad_id=2):
    """What llmft writes for each source, in their order."""
    config = generation_config(generation, pretrained, list(end_ids), pad_id)
    found = list(generate(pretrained, sources, config, generation.batch_size, torch.float32))
    assert sorted(place for place, _ in found) == list(range(len(sources)))
    return [each for _, each in sorted(found, key=lambda pair: pair[0])]


def common_token(rows):
    """A token that ends some of the rows early and leaves others whole."""
    ids, counts = np.unique([token for row in rows for token in set(row[2:])], return_counts=True)
    return int(ids[np.argmax(counts)])


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2"])
def test_greedy_is_that_of_transformers_for_every_batch_size(open_tiny, prompts, name):
    pretrained = open_tiny(name)
    model = pretrained.model
    end_id = common_token(one_by_one(model, prompts, None, 0))
    rows = one_by_one(model, prompts, end_id, 0)
    expected = [Continuation(row[:-1], "stop") if row[-1] == end_id else Continuation(row, "length") for row in rows]
    assert {each.finished for each in expected} == {"stop", "length"}
    for batch_size in (1, 3, 16):
        for pad_id in (0, end_id):  # padding with the end token itself is usual
            generation = Generation(max_new_tokens=NEW_TOKENS, batch_size=batch_size)
            assert decoded(pretrained, prompts, generation, [end_id], pad_id) == expected


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 2}], ids=str)
def test_settings_reach_transformers(open_tiny, prompts, options):
    pretrained = open_tiny("llama")
    greedy = one_by_one(pretrained.model, prompts, [2], 2)
    expected = one_by_one(pretrained.model, prompts, [2], 2, **options)
    assert expected != greedy
    generation = Generation(max_new_tokens=NEW_TOKENS, batch_size=1, **options)
    found = decoded(pretrained, prompts, generation)
    assert [each.ids for each in found] == [row[: row.index(2)] if 2 in row else row for row in expected]


def test_sampling_follows_the_seed(open_tiny, prompts):
    pretrained = open_tiny("llama")
    generation = Generation(max_new_tokens=NEW_TOKENS, temperature=1.0, top_k=20)

    def sample(seed):
        torch.manual_seed(seed)
        return decoded(pretrained, prompts, generation)

    assert sample(0) == sample(0) != sample(1)


def test_settings_saved_with_the_model_do_not_leak_in(open_tiny, prompts):
    """Qwen3's folder asks for sampling, BART's for beams and a least length; what was configured here is what counts."""
    pretrained = open_tiny("llama")
    generation = Generation(max_new_tokens=NEW_TOKENS)
    before = decoded(pretrained, prompts, generation)
    own = {"do_sample": True, "temperature": 5.0, "top_k": 3, "num_beams": 3, "repetition_penalty": 3.0, "max_length": 5}
    own |= {"min_length": 30, "min_new_tokens": 12, "length_penalty": -3.0, "early_stopping": True, "stop_strings": ["a"]}
    pretrained.model.generation_config.update(**own)
    assert decoded(pretrained, prompts, generation) == before
    assert pretrained.model.generation_config.min_length == 30  # put back


def test_longest_prompts_come_first(open_tiny, prompts):
    pretrained = open_tiny("llama")
    config = generation_config(Generation(max_new_tokens=1), pretrained, [2], 2)
    found = [place for place, _ in generate(pretrained, prompts, config, 4, torch.float32)]
    lengths = [len(prompts[place]) for place in found]
    assert lengths == sorted(lengths, reverse=True)


def test_training_mode_is_put_back(open_tiny, prompts):
    pretrained = open_tiny("gpt2")
    pretrained.model.train()
    first, second = (decoded(pretrained, prompts[:3], Generation(max_new_tokens=4), [0], 0) for _ in range(2))
    assert first == second  # no dropout while it decodes
    assert pretrained.model.training


def test_until_end():
    config = GenerationConfig(max_new_tokens=4, eos_token_id=[1, 2])
    assert until_end([5, 6, 7], config) == Continuation([5, 6, 7], "length")
    assert until_end([5, 2, 7, 1], config) == Continuation([5], "stop")
    assert until_end([1], config) == Continuation([], "stop")
    assert until_end([5, 6, 7, 1], config) == Continuation([5, 6, 7], "stop")


def test_an_end_that_is_forced_is_no_end():
    config = GenerationConfig(max_new_tokens=4, eos_token_id=[2], forced_eos_token_id=2)
    assert until_end([5, 6, 7, 2], config) == Continuation([5, 6, 7], "length")
    assert until_end([5, 6, 2, 1], config) == Continuation([5, 6], "stop")
    config = GenerationConfig(max_new_tokens=5, eos_token_id=[2], forced_eos_token_id=2, forced_bos_token_id=0)
    assert until_end([5, 6, 7, 2], config) == Continuation([5, 6, 7], "length")  # after the token that was forced first


def test_generation_config_says_what_was_asked(open_tiny):
    llama = open_tiny("llama")
    settings = Generation(max_new_tokens=9, temperature=0.7, top_p=0.9, length_penalty=0.5)
    config = generation_config(settings, llama, [2, 5], 3)
    names = ("max_new_tokens", "do_sample", "temperature", "top_p", "top_k", "length_penalty")
    assert [getattr(config, name) for name in names] == [9, True, 0.7, 0.9, 0, 0.5]
    assert (config.eos_token_id, config.pad_token_id) == ([2, 5], 3)
    assert generation_config(Generation(), llama, [2], 2).do_sample is False


@pytest.mark.parametrize("own", [True, False], ids=["own search", "transformers"])
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", ["llama", "t5"])
def test_a_signal_stops_at_the_next_token(open_tiny, prompts, monkeypatch, name, beams, own):
    monkeypatch.setattr(signals, "_stopping", False)
    pretrained = open_tiny(name)
    model = pretrained.model.train()
    config = generation_config(Generation(max_new_tokens=100, num_beams=beams), pretrained, [], 2)
    if not own:
        config.min_new_tokens = 1
    passes = []
    embedding = model.get_decoder().embed_tokens
    forward = embedding.forward

    def counted(*args, **options):
        passes.append(1)
        if len(passes) == seen + 3:
            os.kill(os.getpid(), signal.SIGUSR1)
        return forward(*args, **options)

    sources = [[token % 60 + 3 for token in prompt] for prompt in prompts]
    seen = 10**6
    monkeypatch.setattr(embedding, "forward", counted)
    next(
        generate(
            pretrained,
            sources[:1],
            generation_config(Generation(max_new_tokens=1, num_beams=beams), pretrained, [], 2),
            1,
            torch.float32,
        )
    )
    seen = len(passes)  # the comparison with the plain pass is behind us
    before = signal.signal(signal.SIGUSR1, signals._receive)  # what `install` does, without its watching thread
    try:
        with pytest.raises(Stopped) as stopped:
            list(generate(pretrained, sources, config, 16, torch.float32))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert stopped.value.exit_code == 75
    assert len(passes) - seen == 3
    assert model.training


def refuse_above(rows, monkeypatch):
    """Refuse memory for more texts side by side, after chance has moved; return the sizes that were tried."""
    begin, tried = Prompts.begin, []

    def limited(self, sources):
        tried.append(len(self.prompts) + len(sources))
        torch.rand(3)
        if tried[-1] > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return begin(self, sources)

    monkeypatch.setattr(Prompts, "begin", limited)
    return tried


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_where_memory_runs_out_batches_are_halved(open_tiny, prompts, monkeypatch, name):
    pretrained = open_tiny(name)
    settings = Generation(max_new_tokens=NEW_TOKENS, batch_size=8)
    expected = decoded(pretrained, prompts, settings)  # which also compares, so that memory is refused to the search alone
    tried = refuse_above(3, monkeypatch)
    assert decoded(pretrained, prompts, settings) == expected
    assert tried[:3] == [8, 4, 2]
    assert max(tried[3:]) == 2  # 17 prompts: once halved it stays so


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_where_the_system_refuses_pages_batches_are_halved(open_tiny, prompts, monkeypatch, name):
    pretrained = open_tiny(name)
    settings = Generation(max_new_tokens=NEW_TOKENS, batch_size=8)
    expected = decoded(pretrained, prompts, settings)
    pages, asked = mmap.mmap, []

    def limited(fileno, size, **options):
        asked.append(size)
        if size > asked[0] // 3:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return pages(fileno, size, **options)

    monkeypatch.setattr(mmap, "mmap", limited)
    assert decoded(pretrained, prompts, settings) == expected
    assert asked[1] == asked[0] // 2
    assert asked[2] == asked[0] // 4


def test_a_refused_batch_draws_no_numbers(open_tiny, prompts, monkeypatch):
    pretrained = open_tiny("llama")
    decoded(pretrained, prompts, Generation(max_new_tokens=1))
    small = Generation(max_new_tokens=NEW_TOKENS, batch_size=2, temperature=1.0)
    refuse_above(3, monkeypatch)
    torch.manual_seed(4)
    expected = decoded(pretrained, prompts, small)
    torch.manual_seed(4)
    assert decoded(pretrained, prompts, replace(small, batch_size=8)) == expected


def test_a_source_that_does_not_fit_alone(open_tiny, prompts, monkeypatch):
    pretrained = open_tiny("llama")
    pretrained.model.train()
    decoded(pretrained, prompts, Generation(max_new_tokens=1))
    refuse_above(0, monkeypatch)
    with pytest.raises(DoesNotFit, match="one source of 30 tokens alone"):
        decoded(pretrained, prompts, Generation(batch_size=4))
    assert pretrained.model.training

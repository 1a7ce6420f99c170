"""Our own search against transformers' `generate`, token for token."""

import pytest
import torch

from llmft.config.schema import Generation
from llmft.models.decoding.search import filled
from llmft.models.generate import generate, generation_config
from llmft.models.languages import set_languages
from llmft.models.token_ids import end_ids

NEW_TOKENS = 10
NAMES = ["gpt2", "llama", "qwen3", "mistral", "t5", "bart", "marian", "mbart", "m2m100"]
SETTINGS = {
    "greedy": {},
    "repetition": {"repetition_penalty": 1.3},
    "bigrams": {"no_repeat_ngram_size": 2},
    "beams": {"num_beams": 3},
    "short beams": {"num_beams": 4, "length_penalty": 0.2},
    "long beams": {"num_beams": 2, "length_penalty": 2.5, "no_repeat_ngram_size": 2, "repetition_penalty": 1.2},
}


def configured(pretrained, settings, **more):
    forced = set_languages(pretrained.tokenizer, pretrained.model, "en", "de") if pretrained.tokenizer else None
    ends, pad = end_ids(pretrained.model.config) or [2], pretrained.model.config.pad_token_id or 0
    config = generation_config(Generation(max_new_tokens=NEW_TOKENS, **settings), pretrained, ends, pad, forced)
    config.update(**more)
    return config


def written(pretrained, sources, config, batch_size=5):
    found = dict(generate(pretrained, sources, config, batch_size, torch.float32))
    return [found[place].ids for place in range(len(sources))]


def frequent(rows):
    """A token that many texts hold, and not as their first."""
    tokens = [token for row in rows for token in set(row[1:])]
    return max(sorted(set(tokens)), key=tokens.count)


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("name", NAMES)
def test_it_writes_what_transformers_writes(open_writer, sources_for, reference, name, settings):
    pretrained = open_writer(name)
    sources, config = sources_for(pretrained), configured(pretrained, settings)
    config.eos_token_id = [*config.eos_token_id, frequent(reference(pretrained, sources, config))]  # so that some end early
    expected = reference(pretrained, sources, config)
    assert len({tuple(row) for row in expected}) >= 4
    assert len({len(row) for row in expected}) >= 2
    assert written(pretrained, sources, config) == expected


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize("settings", [SETTINGS["greedy"], SETTINGS["beams"]], ids=["greedy", "beams"])
@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_so_it_does_through_transformers_layers(open_writer, sources_for, reference, monkeypatch, name, settings):
    """As on a GPU, and for architectures that are made in another way."""
    monkeypatch.setattr("llmft.models.decoding.decoder.flat_of", lambda model: None)
    pretrained = open_writer(name)
    sources, config = sources_for(pretrained), configured(pretrained, settings)
    assert written(pretrained, sources, config) == reference(pretrained, sources, config)


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize("beams", [1, 3], ids=["greedy", "beams"])
@pytest.mark.parametrize("name", ["gpt2", "mistral", "t5", "bart"])
def test_what_a_model_forces_and_forbids(open_writer, sources_for, reference, name, beams):
    pretrained = open_writer(name)
    sources, plain = sources_for(pretrained), configured(pretrained, {"num_beams": beams})
    free = [row for row in reference(pretrained, sources, plain) if len(row) > 2]
    kinds = [
        {"bad_words_ids": [free[0][1:3], free[1][:1]]},
        {"suppress_tokens": [frequent(free)]},
        {"begin_suppress_tokens": [row[0] for row in free]},
        {"forced_eos_token_id": 7},
        {"forced_bos_token_id": 9} if pretrained.model.config.is_encoder_decoder else {},
    ]
    for kind in kinds:
        config = configured(pretrained, {"num_beams": beams}, **kind)
        expected = reference(pretrained, sources, config)
        assert (expected != reference(pretrained, sources, plain)) is bool(kind)
        assert written(pretrained, sources, config) == expected


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize("early", [True, "never"])
@pytest.mark.parametrize("penalty", [0.5, 1.5])
@pytest.mark.parametrize("name", ["llama", "marian"])
def test_when_beams_stop(open_writer, sources_for, reference, name, penalty, early):
    pretrained = open_writer(name)
    sources = sources_for(pretrained)
    config = configured(pretrained, {"num_beams": 3, "length_penalty": penalty}, early_stopping=early)
    config.eos_token_id = [*config.eos_token_id, frequent(reference(pretrained, sources, config))]
    assert written(pretrained, sources, config) == reference(pretrained, sources, config)


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize("beams", [1, 3], ids=["greedy", "beams"])
@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_prompts_that_begin_alike(open_writer, reference, name, beams):
    pretrained = open_writer(name)
    first = list(range(20, 31))
    sources = [[*first, 5, 6], [*first, 7], [*first, 7, 8, 9, 10], first, [*first, 3], [*first, 5, 7]]
    config = configured(pretrained, {"num_beams": beams})
    assert written(pretrained, sources, config, 2) == reference(pretrained, sources, config)
    assert written(pretrained, [first] * 3, config, 2) == reference(pretrained, [first] * 3, config)


@pytest.mark.usefixtures("ours")
def test_prompts_longer_than_a_pass(open_writer, sources_for, reference, monkeypatch):
    monkeypatch.setattr("llmft.models.decoding.decoder.PASS_TOKENS", {"cpu": 8})
    for name in ("gpt2", "mistral", "bart"):
        pretrained = open_writer(name)
        sources, config = sources_for(pretrained), configured(pretrained, {})
        assert written(pretrained, sources, config) == reference(pretrained, sources, config)


def test_rows_that_stay_move_little():
    assert filled(5, {1, 3}) == [0, 4, 2]
    assert filled(3, {2}) == [0, 1]
    assert filled(3, {0, 1, 2}) == []
    assert filled(4, {0, 1}) == [2, 3]

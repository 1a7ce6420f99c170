"""Decoding by encoder-decoders, and what is the same for both families: results do not depend on who shares a batch."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

from llmft.config.schema import Adapter, AdapterKind, Generation
from llmft.models.adapter import add_adapter
from llmft.models.export import export
from llmft.models.generate import generate, generation_config
from llmft.models.languages import set_languages
from llmft.models.load import load_pretrained

NEW_TOKENS = 10
PAIRS = ["t5", "bart", "marian", "mbart", "mbart25", "m2m100"]
LENGTHS = (7, 3, 19, 1, 7, 12, 4, 30, 2, 7, 5, 9)
CPU = torch.device("cpu")


def opened(open_tiny, name):
    """A loud model, told its languages where it wants them; and the token forced first."""
    pretrained = open_tiny(name)
    return pretrained, set_languages(pretrained.tokenizer, pretrained.model, "en", "de")


def sources(pretrained):
    random = np.random.default_rng(1)
    end = [pretrained.model.config.eos_token_id]
    return [random.integers(4, min(pretrained.model.config.vocab_size, 200), length).tolist() + end for length in LENGTHS]


def settings_of(pretrained, generation, forced_bos=None):
    ends = pretrained.model.config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    return generation_config(generation, pretrained, ends, pretrained.model.config.pad_token_id or 0, forced_bos=forced_bos)


def decoded(pretrained, inputs, config, batch_size):
    found = dict(generate(pretrained, inputs, config, batch_size, torch.float32))
    return [found[place] for place in range(len(inputs))]


@pytest.mark.parametrize("beams", [1, 4], ids=["greedy", "beam 4"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3", *PAIRS])
def test_batch_size_and_order_change_nothing(open_tiny, name, beams):
    pretrained, forced = opened(open_tiny, name)
    inputs = sources(pretrained)
    config = settings_of(pretrained, Generation(max_new_tokens=NEW_TOKENS, num_beams=beams), forced)
    expected = decoded(pretrained, inputs, config, 1)
    assert len({tuple(each.ids) for each in expected}) >= 6  # of 12: what was read matters
    order = np.random.default_rng(5).permutation(len(inputs))
    for batch_size in (3, 8):
        assert decoded(pretrained, inputs, config, batch_size) == expected
        shuffled = decoded(pretrained, [inputs[place] for place in order], config, batch_size)
        assert shuffled == [expected[place] for place in order]


@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "length_penalty": 2.0}, {"no_repeat_ngram_size": 2}], ids=str)
@pytest.mark.parametrize("name", PAIRS)
def test_is_that_of_transformers_one_at_a_time(open_tiny, name, options):
    """Told in transformers' own words, from the model's own configuration, without padding."""
    pretrained, forced = opened(open_tiny, name)
    model, inputs = pretrained.model, sources(pretrained)
    config = settings_of(pretrained, Generation(max_new_tokens=NEW_TOKENS, **options), forced)
    found = decoded(pretrained, inputs, config, 4)
    start, end = model.config.decoder_start_token_id, model.config.eos_token_id
    first = forced if forced is not None else (0 if name == "bart" else None)
    plain = {"num_beams": 1, "no_repeat_ngram_size": 0, "length_penalty": 1.0} | options
    plain |= {"min_length": 0, "early_stopping": False, "do_sample": False, "forced_bos_token_id": first}
    for source, each in zip(inputs, found, strict=True):
        length = NEW_TOKENS + (first is not None)
        with torch.no_grad():
            row = model.generate(torch.tensor([source]), max_new_tokens=length, max_length=None, **plain)[0].tolist()
        assert row[0] == start
        if first is not None:
            assert row[1] == first
        text = row[1:] if first is None else row[2:]
        assert each.ids == (text[: text.index(end)] if end in text else text)
        whole = len(row) - 1 == length and row[-1] != end
        assert not (whole and each.finished == "stop")


def test_sampling_follows_the_seed(open_tiny):
    pretrained, _ = opened(open_tiny, "t5")
    config = settings_of(pretrained, Generation(max_new_tokens=NEW_TOKENS, temperature=1.0))

    def sample(seed):
        torch.manual_seed(seed)
        return decoded(pretrained, sources(pretrained), config, 4)

    assert sample(0) == sample(0) != sample(1)


def test_marian_never_writes_its_pad_token(open_tiny):
    """Its pad token is the start token; the model's own configuration forbids it, and that stays."""
    pretrained, _ = opened(open_tiny, "marian")
    pretrained.model.final_logits_bias[0, 2] = 1e6
    config = settings_of(pretrained, Generation(max_new_tokens=4))
    assert all(2 not in each.ids for each in decoded(pretrained, sources(pretrained), config, 4))
    config.bad_words_ids = None
    assert all(2 in each.ids for each in decoded(pretrained, sources(pretrained), config, 4))


def test_what_wins(open_tiny):
    """Search is llmft's: BART's folder asks for 4 beams, trigrams, a least length. Start, first, last and pad are the model's."""
    pretrained = open_tiny("bart")
    own = pretrained.model.generation_config
    assert (own.num_beams, own.no_repeat_ngram_size, own.min_length, own.max_length, own.early_stopping) == (4, 3, 6, 9, True)
    config = settings_of(pretrained, Generation(max_new_tokens=20))
    assert (config.num_beams, config.no_repeat_ngram_size, config.min_length, config.length_penalty) == (1, 0, 0, 1.0)
    assert (config.early_stopping, config.max_length, config.max_new_tokens) == (False, None, 21)  # <s> is no text
    assert (config.decoder_start_token_id, config.forced_bos_token_id, config.forced_eos_token_id) == (2, 0, 2)
    assert settings_of(pretrained, Generation(), forced_bos=7).forced_bos_token_id == 7


TEXTS = ["The quick brown fox", "A function", "Return the first element of a list, or", "Numbers such as 0, 1"]


@pytest.mark.parametrize("beams", [1, 4], ids=["greedy", "beam 4"])
@pytest.mark.parametrize("way", ["full", "merged"])
@pytest.mark.parametrize("name", PAIRS)
def test_plain_transformers_writes_the_same_texts_from_the_saved_folder(open_tiny, tiny, tmp_path, name, way, beams):
    if way == "full":
        pretrained, forced = opened(open_tiny, name)
    else:
        pretrained = load_pretrained(tiny / name, torch.float32, CPU)
        forced = set_languages(pretrained.tokenizer, pretrained.model, "en", "de")
    config = settings_of(pretrained, Generation(max_new_tokens=NEW_TOKENS, num_beams=beams), forced)

    def written():
        ids = [pretrained.tokenizer(text).input_ids for text in TEXTS]
        return [pretrained.tokenizer.decode(each.ids, skip_special_tokens=True) for each in decoded(pretrained, ids, config, 4)]

    expected = untuned = written()
    if way == "merged":
        add_adapter(pretrained, Adapter(name=AdapterKind.lora, r=4))
        torch.manual_seed(0)
        for _, weight in pretrained.trained:
            torch.nn.init.normal_(weight, std=1.5)
        pretrained.model.eval()
        expected = written()
        assert expected != untuned
    assert any(expected)
    export(pretrained, tmp_path / "m", config, {}, merge=way == "merged")

    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "m").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    batch = tokenizer(TEXTS, return_tensors="pt", padding=True)
    found = tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True)  # nothing but the folder says how
    assert found == expected
    assert GenerationConfig.from_pretrained(tmp_path / "m").num_beams == beams

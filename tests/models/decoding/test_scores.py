"""Rules over scores against transformers' own list of processors, and the choice of a token by its probability."""

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from llmft.models.decoding.scores import Choice, Rules

CPU = torch.device("cpu")
ROWS, WORDS = 4, 40
FREE = {"max_new_tokens": 6, "eos_token_id": [3]}


@pytest.fixture
def scores():
    return torch.randn(ROWS, WORDS, generator=torch.Generator().manual_seed(0)) * 3


def test_without_rules_nothing_is_touched(scores):
    rules = Rules(GenerationConfig(**FREE, repetition_penalty=1.0, no_repeat_ngram_size=0), CPU)
    assert not rules.any
    assert rules(scores, [[1]] * ROWS, [[2]] * ROWS) is scores


@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": 1.7},
        {"no_repeat_ngram_size": 2},
        {"bad_words_ids": [[4], [5, 6], [3]]},
        {"suppress_tokens": [7, 8]},
        {"begin_suppress_tokens": [9]},
        {"forced_eos_token_id": 11},
        {"repetition_penalty": 0.8, "no_repeat_ngram_size": 1, "suppress_tokens": [1], "forced_eos_token_id": [11, 12]},
    ],
    ids=str,
)
def test_rules_are_those_of_transformers(open_writer, scores, options):
    """Also where texts are of different lengths and progress: each row as if it were alone."""
    config = GenerationConfig(**FREE, **options)
    given, ids = [[5, 6, 5], [3, 3], [9], [1, 2, 1, 2, 1]], [[], [5], [1, 2, 1, 2, 5], [1]]
    found = Rules(config, CPU)(scores, given, ids)
    model = open_writer("llama").model
    for row in range(ROWS):
        config.max_length = len(given[row]) + config.max_new_tokens
        config._eos_token_tensor = torch.tensor(config.eos_token_id)
        processors = model._get_logits_processor(config, input_ids_seq_length=len(given[row]))
        expected = processors(torch.tensor([given[row] + ids[row]]), scores[row : row + 1].clone())
        assert torch.equal(found[row], expected[0])


def test_tokens_are_drawn_by_their_probability(scores):
    """Frequencies of many draws against the probabilities, by their standard errors."""
    draws = 20000
    numbers = np.random.default_rng(0).random(draws).tolist()
    config = GenerationConfig(do_sample=True, temperature=0.7, top_k=12, top_p=0.9)
    found = torch.bincount(Choice(config)(scores[:1].expand(draws, -1), numbers), minlength=WORDS) / draws
    kept = (scores[0] / 0.7).sort(descending=True)
    chances = kept[0][:12].softmax(-1)
    count = int((chances.cumsum(-1) < 0.9).sum()) + 1
    expected = torch.zeros(WORDS)
    expected[kept[1][:count]] = chances[:count] / chances[:count].sum()
    error = (expected * (1 - expected) / draws).sqrt()
    assert ((found - expected).abs() <= 4 * error + 1e-9).all()
    assert (found > 0).sum() == count


def test_the_edges_of_chance(scores):
    config = GenerationConfig(do_sample=True, temperature=1.0, top_k=3)
    allowed = set(scores[0].topk(3)[1].tolist())
    for number in (0.0, 1 - 2**-53):
        assert int(Choice(config)(scores[:1], [number])) in allowed


def test_greedy_takes_the_best(scores):
    assert torch.equal(Choice(GenerationConfig(do_sample=False))(scores, []), scores.argmax(-1))

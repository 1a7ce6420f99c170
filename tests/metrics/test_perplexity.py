"""Perplexity and bits per byte of documents whose likelihood is known."""

import math

import numpy as np
import pytest

from llmft.data.example import DocumentPrediction
from llmft.metrics.intervals import with_interval
from llmft.metrics.perplexity import perplexity

# Three texts: each of 4 tokens has a chance of 1/2, of 8 tokens 1/4, of 2 tokens 1/16.
DOCUMENTS = [
    DocumentPrediction("a", 4 * math.log(2), 4, 10),
    DocumentPrediction("b", 8 * math.log(4), 8, 30),
    DocumentPrediction("c", 2 * math.log(16), 2, 8),
]


def test_by_hand():
    """4 + 16 + 8 = 28 bits over 14 tokens and 48 bytes."""
    tokens, num_bytes = perplexity(DOCUMENTS, [(), (), ()])
    assert (tokens.name, num_bytes.name) == ("perplexity", "bits_per_byte")
    assert tokens.value == pytest.approx(2 ** (28 / 14))
    assert num_bytes.value == pytest.approx(28 / 48)
    mean_of_documents = (2 + 4 + 16) / 3
    assert tokens.value != pytest.approx(mean_of_documents, abs=1)
    assert tokens.parts == {"nll": pytest.approx(28 * math.log(2)), "tokens": 14, "bytes": 48}
    assert (tokens.n, tokens.higher_is_better, num_bytes.higher_is_better) == (3, False, False)


def test_samples_of_documents():
    tokens, num_bytes = perplexity(DOCUMENTS, [])
    assert tokens.of_sample(np.array([0, 0, 2])) == pytest.approx(2 ** ((4 + 4 + 8) / (4 + 4 + 2)))
    assert num_bytes.of_sample(np.array([0, 0, 2])) == pytest.approx(16 / 28)
    found = with_interval(tokens, 0)
    assert (found.low, found.high) == (pytest.approx(2), pytest.approx(16))  # one of 27 samples each holds one text only
    assert with_interval(perplexity(DOCUMENTS[:1], [])[0], 0).low is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "corpus|context:model"),
        ({"window": 512, "overlap": 256}, "corpus|context:512|stride:256"),
        ({"window": 128, "overlap": 0}, "corpus|context:128|stride:128"),
    ],
)
def test_the_signature_says_what_context_a_token_has(options, expected):
    assert {score.signature for score in perplexity(DOCUMENTS, [], **options)} == {expected}


def test_extremes():
    assert [math.isnan(score.value) for score in perplexity([], [])] == [True, True]
    one_token = [DocumentPrediction("a", 0.0, 0, 5)]
    assert math.isnan(perplexity(one_token, [()])[0].value)
    assert perplexity([DocumentPrediction("a", 1e6, 10, 5)], [()])[0].value == math.inf

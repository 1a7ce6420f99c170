"""Cutting sources: which end, how much, and whole characters."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from llmft.config.schema import Truncation
from llmft.data.shorten import shorten
from llmft.errors import DataError

LONG = "The quick brown fox jumps over the lazy dog while the cat sleeps in the sun."


@pytest.fixture
def plain(tiny):
    return AutoTokenizer.from_pretrained(tiny / "gpt2")


def count(tokenizer, text):
    return len(tokenizer(text, add_special_tokens=False).input_ids)


def test_truncation_takes_the_end_or_the_start(plain):
    words = plain.tokenize(LONG)
    cut = len(words) - 7
    assert shorten(plain, LONG, 7, Truncation.end, "f:1") == (plain.convert_tokens_to_string(words[:7]), cut)
    found, lost = shorten(plain, LONG, 7, Truncation.start, "f:1")
    assert (found, lost) == (plain.convert_tokens_to_string(words[-7:]), cut)
    assert found.endswith("in the sun.")


def test_truncation_as_an_error(plain):
    size = count(plain, LONG)
    with pytest.raises(DataError) as error:
        shorten(plain, LONG, 7, Truncation.error, "news.jsonl:4")
    assert str(error.value) == (
        f"news.jsonl:4: the source has {size} tokens, task.max_source_tokens allows 7. Raise it or set task.truncation=end."
    )
    assert shorten(plain, LONG, size, Truncation.error, "f:1") == (LONG, 0)


def test_short_texts_are_left_alone(plain):
    assert shorten(plain, LONG, None, Truncation.end, "f:1") == (LONG, 0)
    assert shorten(plain, LONG, count(plain, LONG), Truncation.end, "f:1") == (LONG, 0)
    assert shorten(plain, "", 1, Truncation.end, "f:1") == ("", 0)


@settings(deadline=None, max_examples=200)
@given(
    text=st.text(alphabet=st.one_of(st.sampled_from("ab .東京🙂é"), st.characters(codec="utf-8")), max_size=30),
    limit=st.integers(1, 20),
    start=st.booleans(),
)
def test_cutting_keeps_whole_characters_within_the_limit(byte_level, text, limit, start):
    """A character of three bytes may be three tokens: it is kept whole or not at all, and the limit holds."""
    found, lost = shorten(byte_level, text, limit, Truncation.start if start else Truncation.end, "f:1")
    assert count(byte_level, found) <= limit
    assert text.endswith(found) if start else text.startswith(found)
    assert (lost > 0) == (found != text)
    if lost:
        assert lost == count(byte_level, text) - count(byte_level, found)


@pytest.fixture(scope="module")
def byte_level(tiny):
    return AutoTokenizer.from_pretrained(tiny / "gpt2")

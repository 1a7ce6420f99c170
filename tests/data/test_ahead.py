"""Tokenising ahead: what was asked for is found made, once, and rows are taken in handfuls."""

from transformers import AutoTokenizer

from llmft.data import ahead
from llmft.data.ahead import Ahead, letters_of, read_ahead
from llmft.data.example import Message, TextExample


class Counted:
    """A tokenizer that counts its calls."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.calls = []

    def __call__(self, text, **options):
        self.calls.append(text)
        return self.tokenizer(text, **options)


def test_ids_are_made_once_and_are_the_tokenizers_own(tiny):
    tokenizer = AutoTokenizer.from_pretrained(tiny / "llama")
    counted = Counted(tokenizer)
    ids = Ahead(counted, add_special_tokens=False)
    texts = ["the quick fox", "", "東京 \U0001f98a", "the quick fox", "<|im_end|>"]
    ids.make(iter(texts))
    for text in [*texts, "not asked ahead"]:
        found = ids(text)
        assert found == tokenizer(text, add_special_tokens=False).input_ids
        found.append(7)  # is the caller's own
    assert ids("the quick fox") == tokenizer("the quick fox", add_special_tokens=False).input_ids
    assert counted.calls == [["the quick fox", "", "東京 \U0001f98a", "<|im_end|>"], "not asked ahead"]
    ids.make([])
    assert ids("") == []
    assert counted.calls[-1] == ""


def test_rows_come_in_order_and_in_handfuls(monkeypatch):
    monkeypatch.setattr(ahead, "MOST_ROWS", 4)
    monkeypatch.setattr(ahead, "MOST_LETTERS", 30)
    rows = [TextExample(str(n), "x" * (40 if n == 5 else 1), ("y",), "f:1") for n in range(9)]
    seen = []
    given = read_ahead(iter(rows), lambda some: seen.append([row.id for row in some]))
    assert next(given).id == "0"
    assert seen == [["0", "1", "2", "3"]]  # no more than that is read before the first is encoded
    assert [row.id for row in given] == list("12345678")
    assert seen == [["0", "1", "2", "3"], ["4", "5"], ["6", "7", "8"]]
    turns = (Message("user", "abc"), Message("assistant", "de"), Message("user", "f"))
    assert letters_of(TextExample("0", turns, ("ghij",), "f:1", context="kl")) == 3 * 6 + 4 + 2

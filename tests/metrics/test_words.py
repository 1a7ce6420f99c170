"""Words, sentences and names of languages in many scripts."""

# ruff: noqa: RUF001 (letters and marks of other scripts are what is tested)

import pytest

from llmft.metrics.language import language_code
from llmft.metrics.sentences import split_sentences
from llmft.metrics.words import split_words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't stop, naïve_Émile 42!", ["don", "t", "stop", "naïve", "émile", "42"]),
        ("今天 GPT-4 很好。", ["今", "天", "gpt", "4", "很", "好"]),
        ("ひらがなカタ", ["ひ", "ら", "が", "な", "カ", "タ"]),
        ("안녕하세요 세계", ["안녕하세요", "세계"]),
        ("हिन्दी भाषा।", ["हिन्दी", "भाषा"]),
        ("อากาศดี", ["อ", "า", "ก", "า", "ศ", "ดี"]),  # a vowel above stays with its consonant
        ("मैं २४", ["मैं", "२४"]),
        ("می\u200cخواهم؟ نعم", ["می\u200cخواهم", "نعم"]),
        ("cafe\u0301 CAFÉ", ["café", "café"]),
        ("", []),
        ("—…!", []),
    ],
)
def test_words(text, expected):
    assert split_words(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("今天。明天！「好吗？」他说。", ["今天。", "明天！", "「好吗？」", "他说。"]),
        ("هل أنت هنا؟ نعم. لا", ["هل أنت هنا؟", "نعم.", "لا"]),
        ("यह है। वह है॥ और", ["यह है।", "वह है॥", "और"]),
        ("Да. Нет! Кто?", ["Да.", "Нет!", "Кто?"]),
        ("Über z.B. alles. Ärger “auch.” Ende", ["Über z.B. alles.", "Ärger “auch.", "Ende"]),
        ("３．５倍です。", ["３．５倍です。"]),
    ],
)
def test_sentences(text, expected):
    assert split_sentences(text) == expected


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("de", "de"), ("de_DE", "de"), ("deu_Latn", "de"), ("__de__", "de"), ("DE", "de"), ("pt-BR", "pt"),
        ("zh_CN", "zh"), ("zho_Hans", "zh"), ("zh-TW", "zh"), ("yue_Hant", "zh"), ("jpn_Jpan", "ja"), ("ja_XX", "ja"),
        ("kor_Hang", "ko"), ("tha_Thai", "th"), ("eng_Latn", "en"), ("gsw", "gsw"), (None, None), ("", None),
    ],
)  # fmt: skip
def test_language_codes(name, code):
    assert language_code(name) == code

"""Control characters become visible, letters stay what they are."""

import pytest

from llmft.config.shown import shown, visible


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b2J", r"\x9b2J"),  # CSI as one character, ECMA-48
        ("over\rwritten\b", r"over\x0dwritten\x08"),
        ("user\u202enimda", r"user\u202enimda"),
        ("half \ud83d", r"half \ud83d"),
        ("two\nlines\tand é 要 😀 العربية", "two\nlines\tand é 要 😀 العربية"),
    ],
)
def test_visible(text, expected):
    assert visible(text) == expected.replace(r"\x0d", r"\r")


def test_shown_hides_secrets_too():
    assert shown("\x1b[1mhf_" + "a1" * 12) == r"\x1b[1mhf_[redacted]"

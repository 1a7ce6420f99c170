"""Templates: what a row becomes, and what is refused, compared whole."""

import pytest

from llmft.data.row import Row
from llmft.data.template import Template
from llmft.errors import ConfigError, DataError

FIELDS = {
    "article": "Text {x} here",
    "n": 2**63 + 1,
    "f": 0.1,
    "yes": True,
    "none": None,
    "tags": ["a", "b"],
    "empty": [],
    "numbers": [1, 2],
    "nan": float("nan"),
    "translation": {"en": "Hello", "de": None},
    "answers": {"text": ["one", "two"], "start": [4]},
    "a.b": "dotted",
    "turns": [{"content": "hi"}, {"content": "ho"}],
    "Review Text": "fine",
    "__class__": "safe",
}
ROW = Row(FIELDS, "f.jsonl:7")


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{article}", "Text {x} here"),
        ("summarize: {article}!", "summarize: Text {x} here!"),
        ("{n} {f} {yes}", "9223372036854775809 0.1 true"),
        ("{tags}", "a b"),
        ("{translation.en}", "Hello"),
        ("{answers.text[1]} {answers.start[0]}", "two 4"),
        ("{turns[1].content}", "ho"),
        ("{a.b}", "dotted"),
        ("{Review Text}", "fine"),
        ("{{article}} {{}}", "{article} {}"),
        ("{{{f}}}", "{0.1}"),
        ("no columns", "no columns"),
        ("", ""),
    ],
)
def test_fill(text, filled):
    assert Template(text).fill(ROW) == filled


def test_columns():
    assert Template("{a.b} {article} {{no}} {a.b} {answers.text[0]}").columns == ("a.b", "article", "answers.text[0]")


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{tags}", ["a", "b"]),
        ("{answers.text}", ["one", "two"]),
        ("{article}", ["Text {x} here"]),
        ("{tags} ", ["a b "]),
        ("{f}", ["0.1"]),
    ],
)
def test_fill_all(text, filled):
    assert Template(text).fill_all(ROW) == filled


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{artcle}",
            "f.jsonl:7: no column 'artcle'; the row has article, n. Did you mean 'article'? Fix task.target or the data.",
        ),
        ("{zzz}", "f.jsonl:7: no column 'zzz'; the row has article, n. Fix task.target or the data."),
        ("{n.en}", "f.jsonl:7: no 'n.en': found int 5 where 'en' was looked for. Fix task.target or the data."),
        ("{n[0]}", "f.jsonl:7: no 'n[0]': found int 5 where 0 was looked for. Fix task.target or the data."),
    ],
)
def test_missing(text, message):
    with pytest.raises(DataError) as caught:
        Template(text, "task.target").fill(Row({"article": "x", "n": 5}, "f.jsonl:7"))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{none}", "column 'none' is null; expected text, a number or a list of texts."),
        ("{empty}", "column 'empty' is an empty list;"),
        ("{numbers}", "column 'numbers' is a list of 2 ([1, 2]);"),
        ("{nan}", "column 'nan' is float nan;"),
        ("{translation}", "column 'translation' is an object with en, de;"),
        ("{translation.de}", "column 'translation.de' is null;"),
        ("{translation.fr}", "no column 'translation.fr'; found en, de."),
        ("{tags[2]}", "no 'tags[2]': found a list of 2 (['a', 'b']) where 2 was looked for."),
        ("{turns.content}", "no 'turns.content': found a list of 2"),
        ("{article.__class__}", "no 'article.__class__': found str"),
    ],
)
def test_no_text_there(text, part):
    for fill in (Template(text).fill, Template(text).fill_all):
        with pytest.raises(DataError) as caught:
            fill(ROW)
        assert str(caught.value).startswith(f"f.jsonl:7: {part}")
        assert str(caught.value).endswith("Fix task.source or the data.")


@pytest.mark.parametrize(
    "text", ["{", "}", "{a", "a}", "{}", "{a{b}}", "{ a}", "{a }", "{a..b}", "{.a}", "{a[x]}", "{a[-1]}", "{a[0}"]
)
def test_malformed(text):
    with pytest.raises(ConfigError, match=r"^task\.references: "):
        Template(text, "task.references")


def test_malformed_whole_message():
    with pytest.raises(ConfigError) as caught:
        Template("Say {article", "task.source")
    assert str(caught.value) == (
        "task.source: a { that is never closed, or closed without a column, at character 5 of 'Say {article'; "
        "expected {column}. Write {{ and }} for braces."
    )

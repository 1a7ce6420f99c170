"""Templates: what a row becomes, and what is refused, compared whole."""

import pytest

from llmft.data.row import Row
from llmft.data.source import read
from llmft.data.template import Template, column_of, fill_each
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


def test_an_empty_list_where_it_may_be():
    assert Template("{empty}").fill_all(ROW, may_be_empty=True) == []
    assert Template("{tags}").fill_all(ROW, may_be_empty=True) == ["a", "b"]
    for text in ("{empty} ", "{none}", "{nope}"):
        with pytest.raises(DataError):
            Template(text).fill_all(ROW, may_be_empty=True)


SUMMARIES = [Template(f"{{summary{n}}}", "task.references") for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("fields", "texts"),
    [
        ({"summary1": "a", "summary2": "b", "summary3": "c"}, ["a", "b", "c"]),
        ({"summary1": "a", "summary2": ["b", "b2"], "summary3": 3}, ["a", "b", "b2", "3"]),
        ({"summary1": "", "summary2": None, "summary3": "c"}, ["c"]),
        ({"summary1": [], "summary2": "b", "summary3": ""}, ["b"]),
    ],
)
def test_fill_each(fields, texts):
    assert fill_each(SUMMARIES, Row(fields, "f:1")) == texts


def test_fill_each_with_one_template_is_strict():
    assert fill_each(SUMMARIES[:1], Row({"summary1": ["a", "b"]}, "f:1")) == ["a", "b"]
    with pytest.raises(DataError, match=r"^f:1: column 'summary1' is null;"):
        fill_each(SUMMARIES[:1], Row({"summary1": None}, "f:1"))


def test_fill_each_without_any_text():
    with pytest.raises(DataError) as caught:
        fill_each(SUMMARIES, Row({"summary1": "", "summary2": None, "summary3": []}, "f:1"))
    assert str(caught.value) == (
        "f:1: nothing in {summary1}, {summary2}, {summary3}; expected a text in one of them. Fix task.references or the data."
    )
    with pytest.raises(DataError, match=r"^f:1: no column 'summary3'; the row has summary1, summary2\."):
        fill_each(SUMMARIES, Row({"summary1": "a", "summary2": "b"}, "f:1"))


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("answers.start", [4]),
        ("{answers.start}", [4]),
        ("numbers", [1, 2]),
        ("numbers[1]", [2]),
        ("empty", []),
        ("n", [2**63 + 1]),
        ("none", None),
        ("answers.place", None),
        ("nope", None),
        ("numbers[2]", None),
    ],
)
def test_whole_numbers(text, numbers):
    assert column_of(text, "task.answer_start").whole_numbers(ROW) == numbers


def test_whole_numbers_under_a_name_with_dots():
    assert column_of("a.b", "task.answer_start").whole_numbers(Row({"a.b": [5]}, "f:1")) == [5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tags", "f.jsonl:7: column 'tags' is a list of 2 (['a', 'b']); expected whole numbers. Fix task.answer_start or the data."),
        ("f", "f.jsonl:7: column 'f' is float 0.1; expected whole numbers. Fix task.answer_start or the data."),
        ("yes", "f.jsonl:7: column 'yes' is bool True; expected whole numbers. Fix task.answer_start or the data."),
        ("answer.start", "f.jsonl:7: no column 'answer'; the row has article, n, f, yes, none, tags, empty, numbers, nan, translation, "
         "answers, a.b, turns, Review Text, __class__. Did you mean 'answers'? Fix task.answer_start or the data."),
    ],
)  # fmt: skip
def test_no_whole_numbers(text, message):
    with pytest.raises(DataError) as caught:
        column_of(text, "task.answer_start").whole_numbers(ROW)
    assert str(caught.value) == message


def test_column_value():
    assert column_of("turns", "task.messages").value(ROW) == [{"content": "hi"}, {"content": "ho"}]
    with pytest.raises(DataError, match=r"no column 'trns'; .* Did you mean 'turns'\? Fix task\.messages"):
        column_of("trns", "task.messages").value(ROW)


@pytest.mark.parametrize("text", ["", "{}", "a..b", " a", "{a} ", "{a}{b}", "a[x]"])
def test_no_column(text):
    with pytest.raises(ConfigError, match=r"^task\.messages: .* is no column; expected a name as in"):
        column_of(text, "task.messages")


def test_numbers_are_written_as_the_file_has_them(tmp_path):
    path = tmp_path / "a.jsonl"
    numbers = [
        "1.10",
        "0.1234567890123456789",
        "1E5",
        "1e-400",
        "-0.0",
        "2.50",
        "9223372036854775809",
        "18446744073709551617.0",
    ]
    path.write_text("".join(f'{{"a": {number}}}\n' for number in numbers))
    found = list(read(path))
    assert [Template("{a}").fill(row) for row in found] == numbers
    assert [row.fields["a"] for row in found] == [1.1, 0.12345678901234568, 1e5, 0, 0, 2.5, 2**63 + 1, 2.0**64]

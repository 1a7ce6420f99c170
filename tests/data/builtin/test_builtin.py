"""Built-in sets: enough rows, every row sound, nothing shared between training and evaluation, the same each time."""

import ast
import importlib
import re
import subprocess
import sys
from collections import Counter

import pytest

from llmft.config.names import DATASETS
from llmft.data.audit import audit
from llmft.data.builtin.docstrings import Docstring, library, read_module, split_rows
from llmft.data.builtin.instructions import request
from llmft.data.builtin.numbers import in_english, in_german
from llmft.data.builtin.questions import questions
from llmft.data.builtin.topics import PACKAGES, TOPICS, names_module
from llmft.data.example import TextExample
from llmft.data.row import Row
from llmft.data.shapes import conversation, squad
from llmft.errors import DataError

# name, texts that may not be on both sides, least rows of train, validation and test
SETS = [
    ("library_questions", ("context",), (400, 60, 100)),
    ("library_text", ("text",), (700, 120, 200)),
    ("library_instructions", ("source", "target"), (1200, 150, 300)),
    ("library_topics", ("text",), (700, 100, 250)),
    ("toy_numbers", ("source", "target"), (1500, 100, 200)),
]


def make(name):
    module, _, function = DATASETS[name].rpartition(".")
    return getattr(importlib.import_module(module), function)()


@pytest.fixture(scope="module")
def made():
    return {name: make(name) for name, *_ in SETS}


def test_every_built_in_set_has_its_function():
    assert {"standard_library", *(name for name, *_ in SETS)} == set(DATASETS)


@pytest.mark.parametrize(("name", "columns", "least"), SETS, ids=[case[0] for case in SETS])
def test_rows(made, name, columns, least):
    splits = made[name]
    assert list(splits) == ["train", "validation", "test"]
    assert all(len(rows) >= count for rows, count in zip(splits.values(), least, strict=True))
    everything = [row for rows in splits.values() for row in rows]
    assert len({row.fields["id"] for row in everything}) == len(everything)
    assert all(row.fields.keys() == everything[0].fields.keys() for row in everything)
    assert all(row.fields[column].strip() == row.fields[column] != "" for row in everything for column in columns)
    assert all(re.fullmatch(r"Lib/[\w/]+\.py:\d+|toy_numbers:\d+", row.where) for row in everything)


@pytest.mark.parametrize(("name", "columns", "least"), SETS[:-1], ids=[case[0] for case in SETS[:-1]])
def test_splits_share_no_text(made, name, columns, least):
    """Counted apart from the code that made them: eight words in a row stand on one side only."""

    def runs(rows):
        texts = [re.findall(r"\w+", row.fields[column].lower()) for row in rows for column in columns]
        return {tuple(words[i : i + 8]) for words in texts for i in range(len(words) - 7)}

    train, validation, test = map(runs, made[name].values())
    assert len(test) > 500
    assert not train & test
    assert not validation & test
    assert not train & validation


@pytest.mark.parametrize(("name", "columns", "least"), SETS, ids=[case[0] for case in SETS])
def test_no_row_of_one_split_is_in_another(made, name, columns, least):
    examples = {
        split: [TextExample(row.fields["id"], row.fields[columns[0]], (row.fields["id"],), row.where) for row in rows]
        for split, rows in made[name].items()
    }
    assert audit(examples)["overlap"] == {"validation": 0, "test": 0}


def test_same_in_another_process(made):
    program = (
        "import importlib\nfrom llmft.config.names import DATASETS\nfound = {}\n"
        f"for name in {[name for name, *_ in SETS]}:\n"
        "    module, _, function = DATASETS[name].rpartition('.')\n"
        "    splits = getattr(importlib.import_module(module), function)()\n"
        "    found[name] = [[row.fields['id'] for row in rows] for rows in splits.values()]\n"
        "print(found)"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    expected = {name: [[row.fields["id"] for row in rows] for rows in splits.values()] for name, splits in made.items()}
    assert ast.literal_eval(out.stdout) == expected


def test_modules_stay_on_one_side(made):
    for name in ("library_questions", "library_text", "library_instructions"):
        tops = [{row.fields["module"].split(".")[0].lstrip("_") for row in rows} for rows in made[name].values()]
        assert not tops[0] & tops[1]
        assert not tops[0] & tops[2]
        assert not tops[1] & tops[2]


def test_answers_stand_in_their_contexts(made):
    rows = [row.fields for rows in made["library_questions"].values() for row in rows]
    for row in rows:
        [answer], [start] = row["answers"]["text"], row["answers"]["answer_start"]
        assert row["context"][start : start + len(answer)] == answer
        assert answer.lower() not in row["question"].lower()
        assert len(answer.split()) <= 14
        assert 80 <= len(row["context"]) <= 1000
        [same] = squad(row)
        assert (same["answers"], same["is_impossible"]) == (row["answers"], False)
    kinds = Counter(
        row["question"].split()[0] + row["question"].rpartition(" ")[2] * ("return?" in row["question"]) for row in rows
    )
    assert kinds["Which"] >= 20
    assert kinds["Whatreturn?"] >= 100
    assert kinds["What"] >= 150
    assert len({(row["context"], row["question"]) for row in rows}) == len(rows)


ASKED = """Open a file for reading, whatever its name may be.

If the file does not exist, it is created (see below). If mode is "w", it is emptied.
Raises ValueError if the mode is
not known. The mode defaults to 'r'. The *name* is a path or a number.
Returns the open file.
"""


def test_what_is_asked():
    found = list(questions(Docstring("m.C.open_it", "m", "Lib/m.py:1", ASKED, ("name",))))
    assert [(each.question, each.answer) for each in found] == [
        ("Which exception is raised if the mode is not known?", "ValueError"),
        ('What happens if mode is "w"?', "it is emptied"),
        ("What does open_it return?", "the open file"),
        ("What does mode default to?", "'r'"),
    ]
    assert all(each.context[each.start :].startswith(each.answer) for each in found)


def test_prose_of_library_text(made):
    rows = [row.fields["text"] for rows in made["library_text"].values() for row in rows]
    assert not [text for text in rows if ">>>" in text or len(text) < 150]
    paragraphs = [part for text in rows for part in text.split("\n\n")]
    assert len(set(paragraphs)) == len(paragraphs)
    assert sum(map(len, rows)) > 400_000


def test_topics(made):
    for split, least in (("train", 60), ("validation", 8), ("test", 30)):
        counts = Counter(row.fields["label"] for row in made["library_topics"][split])
        assert counts.keys() == TOPICS.keys()
        assert min(counts.values()) >= least
    for rows in made["library_topics"].values():
        for row in rows:
            text, parts = row.fields["text"].lower(), row.fields["module"].split(".")
            assert not [part for part in parts if part.strip("_") in text]
    assert sum(map(len, TOPICS.values())) == len(PACKAGES)  # no package has two topics


@pytest.mark.parametrize(
    ("text", "module", "expected"),
    [
        ("Reads mailboxes.", "mailbox", True),
        ("Return a Decimal.", "_pydecimal", True),
        ("The HTTP client.", "http.cookiejar", True),
        ("A cookiejar.", "http.cookiejar", True),
        ("Return a number.", "_pydecimal", False),
    ],
)
def test_names_module(text, module, expected):
    assert names_module(text, module) is expected


def test_instructions(made):
    rows = [row for rows in made["library_instructions"].values() for row in rows]
    turns = Counter()
    for row in rows:
        messages = conversation(row.fields["messages"], row.where)
        assert [message.role for message in messages] == ["user", "assistant"] * (len(messages) // 2)
        assert (messages[0].content, messages[1].content) == (row.fields["source"], row.fields["target"])
        assert all(message.content.strip() for message in messages)
        assert "._" not in row.fields["id"]
        turns[len(messages)] += 1
    assert turns[2] > 1000
    assert turns[4] > 100


def test_requests():
    asked = {request(Docstring(f"m.f{n}", "m", "Lib/m.py:1", "", ("self", "a", "b"))).replace(f"f{n}", "f") for n in range(50)}
    assert asked == {
        "Explain what the function f(a, b) of Python's module m does.",
        "What does m.f(a, b) do in Python?",
        "In one sentence: what is f(a, b) from the module m for?",
    }
    assert "(" not in request(Docstring("m.C", "m", "Lib/m.py:1", "", None))


# Written by hand.
NUMBERS = [
    (0, "zero", "null"),
    (1, "one", "eins"),
    (7, "seven", "sieben"),
    (16, "sixteen", "sechzehn"),
    (17, "seventeen", "siebzehn"),
    (20, "twenty", "zwanzig"),
    (21, "twenty-one", "einundzwanzig"),
    (30, "thirty", "dreißig"),
    (66, "sixty-six", "sechsundsechzig"),
    (77, "seventy-seven", "siebenundsiebzig"),
    (100, "one hundred", "einhundert"),
    (101, "one hundred and one", "einhunderteins"),
    (211, "two hundred and eleven", "zweihundertelf"),
    (999, "nine hundred and ninety-nine", "neunhundertneunundneunzig"),
    (1000, "one thousand", "eintausend"),
    (1001, "one thousand and one", "eintausendeins"),
    (1100, "one thousand one hundred", "eintausendeinhundert"),
    (21031, "twenty-one thousand and thirty-one", "einundzwanzigtausendeinunddreißig"),
    (99999, "ninety-nine thousand nine hundred and ninety-nine", "neunundneunzigtausendneunhundertneunundneunzig"),
]


@pytest.mark.parametrize(("number", "english", "german"), NUMBERS)
def test_numbers(number, english, german):
    assert (in_english(number), in_german(number)) == (english, german)


def test_every_number_has_words_of_its_own(made):
    numbers = range(20_000)
    assert len({in_english(number) for number in numbers}) == len({in_german(number) for number in numbers}) == 20_000
    assert {str(number) for number in range(100)} <= {row.fields["id"] for row in made["toy_numbers"]["train"]}


def test_a_python_without_its_sources():
    with pytest.raises(DataError, match=r"the built-in set mine found too few docstrings .* Use another Python, or name files"):
        split_rows([Row({"id": "a", "text": "x"}, "Lib/a.py:1")], "mine", ("text",), lambda row: "a")


def test_a_file_that_cannot_be_parsed_documents_nothing(tmp_path):
    (tmp_path / "a.py").write_text("def f(:")
    (tmp_path / "b.py").write_text('async def f(self, a, /, b=1, *, c):\n    """Do."""\n')
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "c.py").write_text('"""No."""')
    found = [each for path in sorted(tmp_path.rglob("*.py")) for each in read_module(path, tmp_path)]
    assert found == [Docstring("b.f", "b", "Lib/b.py:2", "Do.", ("self", "a", "b", "c"))]


def test_private_names():
    public = {each.name: each.public for each in library()}
    assert public["textwrap.dedent"]
    assert not public["_pydecimal.getcontext"]
    assert not public["threading.Thread.__init__"]

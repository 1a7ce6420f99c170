"""The built-in set: enough rows, clean ones, and nothing shared between training and evaluation."""

import ast
import re
import subprocess
import sys

import pytest

from llmft.data.audit import audit
from llmft.data.builtin.docstrings import docstrings, split_of
from llmft.data.builtin.prose import is_prose, is_sentence
from llmft.data.builtin.summaries import standard_library, summarized
from llmft.data.example import TextExample


@pytest.fixture(scope="module")
def splits():
    return standard_library()


def words_of(row):
    return re.findall(r"\w+", f"{row.fields['document']} {row.fields['summary']}".lower())


def test_enough_rows(splits):
    assert {split: len(rows) >= least for (split, rows), least in zip(splits.items(), (250, 40, 96), strict=True)} == {
        "train": True,
        "validation": True,
        "test": True,
    }


def test_rows_are_clean(splits):
    for row in [row for rows in splits.values() for row in rows]:
        summary, document = row.fields["summary"], row.fields["document"]
        assert 20 <= len(summary) <= 160
        assert summary.endswith(".")
        assert "\n" not in summary
        assert 120 <= len(document) <= 1500
        assert summary.lower() not in document.lower()
        assert re.fullmatch(r"Lib/[\w/]+\.py:\d+", row.where)
        assert list(row.fields) == ["id", "module", "document", "summary"]
    ids = [row.fields["id"] for rows in splits.values() for row in rows]
    assert len(set(ids)) == len(ids)


def test_splits_share_no_module(splits):
    tops = {split: {row.fields["module"].split(".")[0] for row in rows} for split, rows in splits.items()}
    assert not tops["train"] & (tops["test"] | tops["validation"])
    assert not tops["test"] & tops["validation"]


def test_splits_share_no_text(splits):
    """Counted apart from the code that made them: no eight words in a row, no equal text after the audit's normalising."""

    def runs(rows):
        return {tuple(words[i : i + 8]) for words in map(words_of, rows) for i in range(len(words) - 7)}

    evaluation = runs(splits["test"])
    assert len(evaluation) > 1000
    # A run may cross from a document into its summary, which the code looks at one by one.
    assert not runs(splits["train"]) & evaluation
    assert not runs(splits["validation"]) & evaluation
    assert not runs(splits["train"]) & runs(splits["validation"])
    examples = {
        split: [TextExample(row.fields["id"], row.fields["document"], (row.fields["summary"],), row.where) for row in rows]
        for split, rows in splits.items()
    }
    found = audit(examples)
    assert (found["duplicates"], found["same_source"], found["overlap"]) == (0, 0, {"validation": 0, "test": 0})


def test_same_in_another_process(splits):
    program = "from llmft.data.builtin.summaries import standard_library as s; print([[r.fields['id'] for r in v] for v in s().values()])"
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    assert ast.literal_eval(out.stdout) == [[row.fields["id"] for row in rows] for rows in splits.values()]


def test_docstrings():
    code = '"""M."""\nclass C:\n    """C."""\n    def f(self):\n        if 1:\n            def g():\n                """G."""\ndef h(): pass\n'
    found = [(name, node.body[0].lineno, text) for name, node, text in docstrings(ast.parse(code), "m")]
    assert found == [("m", 1, "M."), ("m.C", 3, "C."), ("m.C.f.g", 7, "G.")]


def test_private_twins_fall_together():
    assert split_of("_pydecimal") == split_of("decimal")
    assert split_of("_pyio") == split_of("io")
    assert split_of("email.message") == split_of("email._parser")


PROSE = "The value is looked up in the table first. If it is not there, the default is returned, and nothing is stored in it at all."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Return the default for a missing key.", True),
        ("get(key, default) -> value of the key.", False),
        ("Return the value. Raise if missing.", False),
        ("Return the value for a key", False),
        ("Internal.", False),
        ("lower case sentences are often fragments.", False),
        ("Return " + "very " * 40 + "much.", False),
    ],
)
def test_is_sentence(text, expected):
    assert is_sentence(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PROSE, True),
        (PROSE[:100], False),
        (PROSE * 20, False),
        (">>> f(1)\n2\n" * 12 + "One sentence. " * 2, False),
        ("    indented: name of a thing that is in a table of things\n" * 5 + "Prose.", False),
        ("a=1; b=2; c=3; d=[4]; e={5}; f=6; g=7; h=8; " * 4 + "x. ", False),
    ],
)
def test_is_prose(text, expected):
    assert is_prose(text) is expected


def test_summarized():
    assert summarized(f"Return the default\nfor a missing key.\n\n{PROSE}\n") == {
        "document": PROSE,
        "summary": "Return the default for a missing key.",
    }
    assert summarized(f"The value is looked up in the table first.\n\n{PROSE}") is None  # the answer stands in the text
    assert summarized("Return the default for a missing key.") is None

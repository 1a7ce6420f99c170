"""The formulation text to text: examples from rows, scores of texts."""

import pytest

from llmft.data.example import TextExample, TextPrediction
from llmft.data.row import Row
from llmft.errors import DataError


def example(source, target="A red fox.", name="0"):
    return TextExample(name, source, (target,), "f:1")


def written(*texts):
    return [TextPrediction(str(place), text, "stop") for place, text in enumerate(texts)]


def rows(*fields):
    return [Row(each, f"f:{number}") for number, each in enumerate(fields, 1)]


def test_examples_from_rows(formulate):
    task = formulate(source="{a}: {b}", target="{t}", references="{r}")
    found = list(
        task.examples(rows({"a": "x", "b": "y", "t": "T", "r": ["R", "T"], "id": 7}, {"a": "", "b": "", "t": "U", "r": "V"}))
    )
    assert found == [TextExample("7", "x: y", ("T", "R"), "f:1"), TextExample("1", ": ", ("U", "V"), "f:2")]
    [plain] = formulate(source="{a}", target="{t}").examples(rows({"a": "x", "t": ["first", "second"]}))
    assert plain.targets == ("first", "second")
    [asked] = task.inputs(rows({"a": "x", "b": "y"}))
    assert asked == TextExample("0", "x: y", (), "f:1")


@pytest.mark.parametrize("target", ["", "  \n", []])
def test_a_row_without_target(formulate, target):
    task = formulate(source="{a}", target="{t}")
    with pytest.raises(DataError) as error:
        list(task.examples(rows({"a": "x", "t": target})))
    assert str(error.value).startswith("f:1: ")


def test_a_conversation_without_an_answer(formulate):
    turns = [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": " "}]
    with pytest.raises(DataError, match=r"^f:1: the last answer of the conversation is empty; expected text, .* task\.row\.$"):
        list(formulate(messages="chat").examples(rows({"chat": turns})))


def test_scores_count_an_empty_prediction_as_wrong(formulate):
    task = formulate(metrics={"rouge": {"use_stemmer": False}})
    scores = {score.name: score for score in task.score(written("", "A red fox."), [example("x"), example("y")])}
    assert set(scores) == {"rouge1", "rouge2", "rougeL", "rougeLsum"}
    rouge = scores["rougeL"]
    assert (rouge.value, rouge.n, rouge.per_example) == (pytest.approx(50), 2, (0.0, pytest.approx(100)))
    assert (rouge.low, rouge.high) == (0.0, pytest.approx(100))
    assert "stemmer:no" in rouge.signature

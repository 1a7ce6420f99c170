"""Texts and their likelihoods: what is read from rows and from predictions files, and how it is scored."""

import math

import pytest

from llmft.config.schema import Formulation
from llmft.data.example import DocumentExample, DocumentPrediction
from llmft.data.row import Row
from llmft.errors import DataError


@pytest.fixture
def language_model(formulate):
    def make(**settings):
        return formulate(formulation=Formulation.language_model, source="{text}", metrics={"perplexity": None}, **settings)

    return make


def test_examples_and_inputs(language_model):
    task = language_model()
    rows = [Row({"text": "A fox.\nA dog.\n"}, "f:1"), Row({"text": "", "id": "b"}, "f:3")]
    assert list(task.examples(rows)) == [DocumentExample("0", "A fox.\nA dog.\n", "f:1"), DocumentExample("b", "", "f:3")]
    assert [each.continued for each in task.inputs(rows)] == [True, True]
    assert task.columns == ("text",)


@pytest.mark.parametrize(
    "prediction",
    [
        DocumentPrediction("0", 12.625, 7, 30, " and so on", "length"),
        DocumentPrediction("0", 0.1, 1, 2, "", "", pseudo=True),
    ],
)
def test_rows_of_predictions_come_back(language_model, prediction):
    task = language_model()
    assert task.from_row("0", task.to_row(prediction), "f:1") == prediction
    as_table = {name: str(value) for name, value in task.to_row(prediction).items()}
    assert task.from_row("0", as_table, "f:1") == prediction


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"nll": None}, "f:1: nll is None; expected a number, 0 or more. "),
        ({"nll": "nan"}, "f:1: nll is nan; expected a number, 0 or more. "),
        ({"nll": -1.0}, "f:1: nll is -1.0; expected a number, 0 or more. "),
        ({"tokens": 2.5}, "f:1: tokens is 2.5; expected a whole number, 0 or more. "),
        ({"num_bytes": True}, "f:1: num_bytes is True; expected a whole number, 0 or more. "),
    ],
)
def test_what_is_no_prediction(language_model, changed, message):
    with pytest.raises(DataError) as error:
        language_model().from_row("0", {"nll": 1.0, "tokens": 2, "num_bytes": 3} | changed, "f:1")
    assert str(error.value) == message + (
        "A language model's prediction holds nll (nats), tokens (scored) and num_bytes (UTF-8)."
    )


def test_scores_are_of_all_texts_together(language_model):
    task = language_model(max_source_tokens=512, overlap=256)
    examples = [DocumentExample("0", "ab", "f:1"), DocumentExample("1", "c" * 8, "f:2")]
    found = [DocumentPrediction("0", 2 * math.log(2), 2, 2), DocumentPrediction("1", 8 * math.log(4), 6, 8)]
    scores = {score.name: score for score in task.score(found, examples)}
    assert scores["perplexity"].value == pytest.approx(
        2 ** (18 / 8)
    )  # 2 + 16 bits over 8 tokens; the mean of both would be 4.17
    assert scores["bits_per_byte"].value == pytest.approx(18 / 10)
    assert scores["perplexity"].signature.endswith("context:512|stride:256")
    pseudo = [DocumentPrediction("0", 1.0, 2, 2, pseudo=True)]
    assert all(score.signature.endswith("|likelihood:pseudo") for score in task.score(pseudo, examples[:1]))


def test_there_is_no_trivial_likelihood(language_model):
    assert language_model().baselines([DocumentExample("0", "ab", "f:1")], []) == {}

"""Rows to questions with places of their answers, predictions files, scores, and what is refused."""

import re

import pytest

from llmft.config.schema import Formulation
from llmft.data.example import SpanExample, SpanPrediction
from llmft.data.row import Row
from llmft.errors import ConfigError, DataError

SQUAD = {
    "formulation": Formulation.span,
    "source": "{question}",
    "context": "{context}",
    "target": "{answers.text}",
    "answer_start": "answers.answer_start",
}
TEXT = "The quick brown fox jumps over the lazy dog."


@pytest.fixture
def span(formulate):
    return lambda **settings: formulate(**SQUAD | settings)


def row(answers, question="Who jumps?", context=TEXT, **more):
    return Row({"question": question, "context": context, "answers": answers, **more}, "f:1")


def given(*answers):
    return {"text": [text for text, _ in answers], "answer_start": [start for _, start in answers]}


def test_a_row(span):
    [found] = span().examples([row(given(("brown fox", 10), ("fox", 16)), id="q7")])
    assert found == SpanExample("q7", "Who jumps?", TEXT, ("brown fox", "fox"), (10, 16), "f:1")
    assert found.source == f"Who jumps?\n{TEXT}"
    [asked] = span().inputs([Row({"question": "Who?", "context": TEXT}, "f:1")])
    assert asked == SpanExample("0", "Who?", TEXT, (), (), "f:1")
    assert span().columns == ("question", "context")


@pytest.mark.parametrize("answers", [{"text": ["the"]}, {"text": ["the"], "answer_start": None}])
def test_without_places_the_first_one_is_taken(span, answers):
    [found] = span().examples([row(answers)])
    assert found.starts == (31,)
    [found] = span(answer_start=None).examples([row({"text": "the", "answer_start": [0]})])  # a text is one answer
    assert (found.targets, found.starts) == (("the",), (31,))


@pytest.mark.parametrize(
    ("context", "answer", "start"),
    [
        ("عاصمة مصر هي القاهرة.", "القاهرة", 13),
        ("東京都は日本の首都です。", "日本", 4),
        ("กรุงเทพเป็นเมืองหลวง", "เมืองหลวง", 11),
        ("\U0001f98a\U0001f98a fox", "fox", 3),  # four UTF-16 units, eight bytes: two code points
        ("cafe\u0301 noir", "noir", 6),
    ],
)
def test_places_are_code_points(span, context, answer, start):
    [named] = span().examples([row(given((answer, start)), context=context)])
    [looked_up] = span(answer_start=None).examples([row({"text": [answer]}, context=context)])
    assert named.starts == looked_up.starts == (start,)
    assert context[start : start + len(answer)] == answer


@pytest.mark.parametrize("answers", [{"text": [], "answer_start": []}, {"text": []}, {"text": None}, {"text": ""}])
def test_no_answer(span, answers):
    [found] = span(no_answer=True).examples([row(answers)])
    assert (found.targets, found.starts) == ((), ())
    with pytest.raises(DataError) as error:
        list(span().examples([row(answers)]))
    assert str(error.value) == (
        "f:1: no answer in {answers.text}; expected one. Set task.no_answer=true if a question may have none (SQuAD 2.0), or leave "
        "such rows out by task.row."
    )


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            row(given(("fox", 15))),
            "f:1: at character 15 of the context stands ' fo', not the answer 'fox', which stands at 16. Places are counted in "
            "characters (code points) from 0. Fix the data, or set task.answer_start=null to look the answers up.",
        ),
        (row(given(("fox", -28))), "f:1: at character -28 of the context stands "),
        (row(given(("wolf", 16))), "f:1: at character 16 of the context stands 'fox ', not the answer 'wolf'. Places "),
        (
            row({"text": ["fox", "dog"], "answer_start": [16]}),
            "f:1: 1 places for 2 answers; expected one for each, in characters from 0. Fix the data, or set "
            "task.answer_start=null to look the answers up.",
        ),
        (row({"text": ["fox"], "answer_start": ["16"]}), "f:1: column 'answers.answer_start' is a list of 1 "),
        (
            row({"text": ["wolf"]}),
            "f:1: the answer 'wolf' does not stand in the context; expected it there letter by letter, since answers are cut out of "
            "the context. Fix the data, leave such rows out by task.row, or use task=question_answering, which writes its answers.",
        ),
        (row({"text": ["QUICK"]}), "f:1: the answer 'QUICK' does not stand in the context; expected it there letter by letter, "
                                   "since answers are cut out of the context. With other letters it does: 'quick'. "),
        (row({"text": [" "]}), "f:1: an answer in {answers.text} is empty; expected text. "),
        (row({"text": ["fox", ""]}), "f:1: an answer in {answers.text} is empty; expected text. "),
        (row(given(("fox", 16)), question=" "), "f:1: the question is empty; expected text. Fix task.source or the data."),
        (row(given(("fox", 16)), context=""), "f:1: the context is empty; expected text. Fix task.context or the data."),
    ],
)  # fmt: skip
def test_rows_that_are_refused(span, bad, message):
    with pytest.raises(DataError) as error:
        list(span(no_answer=True).examples([bad]))
    assert str(error.value).startswith(message)


def test_settings_that_are_refused(span):
    with pytest.raises(ConfigError, match=r"^task\.context is null: answers are cut out of a context; expected "):
        span(context=None)
    for name in ("references", "messages"):
        with pytest.raises(ConfigError, match=rf"^task\.{name} is set, but .* Leave it out\.$"):
            span(**{name: "{answers.text}"})


def test_predictions_files(span):
    task = span()
    for known in (
        SpanPrediction("a", "fox", 16, 19, 3.25, -1.5),
        SpanPrediction("b", "fox"),
        SpanPrediction("c", "", 0, 0, 1.0, 2.0),
    ):
        assert task.from_row(known.id, task.to_row(known), "p:1") == known
    assert task.to_row(SpanPrediction("b", "fox")) == {"prediction": "fox"}
    assert task.from_row("a", {"prediction": "fox", "score": 3}, "p:1").score == 3


def test_predictions_of_a_table(span):
    cells = {"prediction": "fox", "start": "16", "end": "19", "score": "-1.5", "null_odds": ""}
    assert span().from_row("a", cells, "p:1") == SpanPrediction("a", "fox", 16, 19, -1.5, None)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"prediction": None}, "p:1: the prediction is None; expected a text. An empty text says that there is no answer."),
        ({"prediction": "x", "start": "3.5"}, "p:1: start is '3.5'; expected a whole number. Fix it, or leave it out."),
        ({"prediction": "x", "end": 3.5}, "p:1: end is 3.5; expected a whole number. Fix it, or leave it out."),
        ({"prediction": "x", "null_odds": True}, "p:1: null_odds is True; expected a number. Fix it, or leave it out."),
        ({"prediction": "x", "score": float("nan")}, "p:1: score is nan; expected a number. Fix it, or leave it out."),
    ],
)
def test_predictions_that_are_refused(span, bad, message):
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        span().from_row("a", bad, "p:1")


def examples(*answers):
    return [SpanExample(str(number), "Who?", TEXT, each, (), "f:1") for number, each in enumerate(answers)]


def test_scores(span):
    """By hand: "the quick fox" without its article has 2 words, "quick brown fox" 3, 2 in common: F1 is 4/5."""
    task = span(metrics={"squad": {}}, no_answer=True)
    asked = examples(("quick brown fox", "dog"), (), ())
    predicted = [
        SpanPrediction("0", "the quick fox", 0, 0, 0, -3.0),
        SpanPrediction("1", "", 0, 0, 0, 2.0),
        SpanPrediction("2", "fox", 0, 0, 0, -1.0),
    ]
    scores = {score.name: score for score in task.score(predicted, asked)}
    assert scores["exact_match"].value == pytest.approx(100 / 3)
    assert scores["f1"].value == pytest.approx(100 * (0.8 + 1 + 0) / 3)
    assert scores["f1"].per_example == pytest.approx((80, 100, 0))
    # above -1.0 no answer is better for the third question, and the first keeps its own
    assert scores["f1"].parts["best_f1"] == pytest.approx(100 * 2.8 / 3)


def test_odds_go_along_only_where_they_mean_something(span):
    asked = examples(("fox",), ("dog",))
    known = [SpanPrediction("0", "fox", 16, 19, 1.0, -3.0), SpanPrediction("1", "dog", 40, 43, 1.0, -3.0)]
    for task, predicted in (
        (span(metrics={"squad": {}}), known),  # every question has an answer
        (span(metrics={"squad": {}}, no_answer=True), [known[0], SpanPrediction("1", "dog")]),  # a file without odds
    ):
        [exact, _] = task.score(predicted, asked)
        assert exact.value == 100
        assert "best_exact" not in exact.parts


def test_baselines(span):
    asked = examples(("fox",), ())
    found = span(baselines=["whole_context", "no_answer"]).baselines(asked, [])
    assert found == {
        "whole-context": [SpanPrediction("0", TEXT), SpanPrediction("1", TEXT)],
        "no-answer": [SpanPrediction("0", ""), SpanPrediction("1", "")],
    }


def test_a_task_that_writes_needs_an_answer(formulate):
    settings = {name: value for name, value in SQUAD.items() if name not in ("formulation", "answer_start")}
    with pytest.raises(DataError) as error:
        list(formulate(**settings).examples([row({"text": []})]))
    assert str(error.value).startswith("f:1: the target is empty; expected text in {answers.text}, ")
    assert str(error.value).endswith(
        "Questions that have no answer are for task=question_answering_extractive with task.no_answer=true."
    )

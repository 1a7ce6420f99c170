"""Labels: what is read from rows and from predictions files, which classes there are, trivial answers, scores."""

import pytest

from llmft.config.schema import Formulation, LabelKind, Task
from llmft.data.example import LabelExample, LabelPrediction
from llmft.data.row import Row
from llmft.errors import ConfigError, DataError
from llmft.tasks.label import find_labels

SINGLE, MULTI, VALUE = LabelKind.single, LabelKind.multi, LabelKind.value


@pytest.fixture
def label(formulate):
    def make(kind=SINGLE, **settings):
        given = {"source": "{text}", "target": "{label}", **settings}
        return formulate(formulation=Formulation.label, label_kind=kind, **given)

    return make


def row(label, number=1, **fields):
    return Row({"text": "A fox.", "label": label, **fields}, f"f:{number}")


def example(*targets, name="0"):
    return LabelExample(name, "A fox.", None, targets, "f:1")


def task_of(kind=SINGLE):
    return Task(formulation=Formulation.label, source="{text}", target="{label}", label_kind=kind)


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        (SINGLE, "sad", ("sad",)),
        (SINGLE, 3, ("3",)),
        (SINGLE, True, ("true",)),
        (SINGLE, ["sad"], ("sad",)),
        (MULTI, ["b", "a", "b"], ("b", "a")),
        (MULTI, [2, 10], ("2", "10")),
        (MULTI, [], ()),
        (MULTI, "", ()),
        (MULTI, "sad", ("sad",)),
        (MULTI, '["sad", "mad"]', ("sad", "mad")),  # a cell of a table
        (MULTI, "[]", ()),
        (VALUE, -2.5, ("-2.5",)),
        (VALUE, "3", ("3",)),
    ],
)
def test_labels_of_a_row(label, kind, given, expected):
    [found] = label(kind).examples([row(given)])
    assert found == LabelExample("0", "A fox.", None, expected, "f:1")


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (SINGLE, ["a", "b"], "f:1: the label is 2 labels (['a', 'b']); expected one in {label}. Fix task.target or the data. "
         "Set task.label_kind=multi if rows may have several."),
        (SINGLE, " ", "f:1: the label is empty; expected one in {label}. Fix task.target or the data."),
        (MULTI, None, "f:1: the labels are null; expected a list of texts, empty for none. Fix task.target or the data."),
        (MULTI, ["a", ["b"]], "f:1: the labels are a list of 2 (['a', ['b']]); expected a list of texts, empty for none. "
         "Fix task.target or the data."),
        (MULTI, "['a', 'b']", 'f:1: the text "[\'a\', \'b\']" is no JSON list: Expecting value: line 1 column 2 (char 1). '
         'Expected ["a", "b"]; write it so.'),
        (VALUE, "good", "f:1: the value is 'good'; expected a finite number in {label}. Fix task.target or the data, "
         "or set task.label_kind=single for classes."),
        (VALUE, "nan", "f:1: the value is 'nan'; expected a finite number in {label}. Fix task.target or the data, "
         "or set task.label_kind=single for classes."),
    ],
)  # fmt: skip
def test_rows_without_a_label(label, kind, given, message):
    with pytest.raises(DataError) as error:
        list(label(kind).examples([row(given)]))
    assert str(error.value) == message


def test_a_label_that_is_no_class(label):
    with pytest.raises(DataError) as error:
        list(label(labels=["glad", "sad"]).examples([row("sad"), row("mad", 2)]))
    assert str(error.value) == (
        "f:2: the label 'mad' is none of the classes: 'glad', 'sad'. Fix the row, or name all classes in task.labels; those of "
        "the training rows count where it is empty."
    )


def test_several_labels_stand_in_one_column(label):
    with pytest.raises(
        ConfigError, match=r"^task\.target=\{a\} \{b\}: task\.label_kind=multi reads a list of labels; expected one"
    ):
        label(MULTI, target="{a} {b}")


def test_pairs_and_inputs(label):
    task = label(source="{premise}", context="{hypothesis}")
    fields = {"premise": "It rains.", "hypothesis": "It is wet.", "id": 7}
    assert task.columns == ("premise", "hypothesis")
    [found] = task.inputs([Row(fields, "f:1")])
    assert found == LabelExample("7", "It rains.", "It is wet.", (), "f:1")


def test_the_classes_are_those_of_the_rows():
    assert find_labels(task_of(), [row("b"), row("a"), row("b"), row(3)]) == ["3", "a", "b"]
    assert find_labels(task_of(MULTI), [row(["z", "a"]), row([]), row(["m"])]) == ["a", "m", "z"]
    assert find_labels(task_of(MULTI), [row([10, 2]), row([9])]) == ["2", "9", "10"]
    assert find_labels(task_of(MULTI), [row(["z"]), row([])]) == ["z"]  # there or not: something to learn


@pytest.mark.parametrize(
    ("kind", "rows", "message"),
    [
        (SINGLE, [row("a"), row("a")], r"^task\.target=\{label\}: every training row has the label 'a'; expected two classes"),
        (
            SINGLE,
            [row(n / 7) for n in range(1001)],
            r"^task\.target=\{label\}: 1001 different .*Take task=regression if it is",
        ),
        (MULTI, [row([])], r"^task\.target=\{label\}: no training row has a label"),
    ],
)
def test_too_few_or_too_many_classes(kind, rows, message):
    with pytest.raises(DataError, match=message):
        find_labels(task_of(kind), rows)


@pytest.mark.parametrize(
    ("kind", "prediction", "columns"),
    [
        (SINGLE, LabelPrediction("0", ("sad",), {"glad": 0.25, "sad": 0.75}), {"prediction": "sad", "probabilities": {"glad": 0.25, "sad": 0.75}}),
        (SINGLE, LabelPrediction("0", (), {}), {"prediction": "", "probabilities": {}}),
        (MULTI, LabelPrediction("0", ("a", "b"), {"a": 0.5, "b": 1.0}), {"prediction": ["a", "b"], "probabilities": {"a": 0.5, "b": 1.0}}),
        (VALUE, LabelPrediction("0", ("-2.5",), {}), {"prediction": -2.5}),
    ],
)  # fmt: skip
def test_rows_of_predictions_come_back(label, kind, prediction, columns):
    task = label(kind)
    assert task.to_row(prediction) == columns
    assert task.from_row("0", columns, "f:1") == prediction


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        (SINGLE, 3, ("3",)),
        (SINGLE, None, ()),
        (MULTI, '["a", "b"]', ("a", "b")),  # as a table holds it
        (MULTI, "a", ("a",)),
        (MULTI, [], ()),
        (VALUE, " 2.50", (" 2.50",)),
    ],
)
def test_predictions_of_others(label, kind, given, expected):
    assert label(kind).from_row("0", {"prediction": given}, "f:1").labels == expected


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (SINGLE, ["a"], "f:1: the prediction is ['a']; expected a label. An empty one counts as wrong."),
        (MULTI, {"a": 1}, "f:1: the prediction is {'a': 1}; expected a list of labels. An empty one counts as wrong."),
        (VALUE, "", "f:1: the prediction is ''; expected a number. Each row needs one."),
        (VALUE, "inf", "f:1: the prediction is 'inf'; expected a number. Each row needs one."),
    ],
)
def test_what_is_no_prediction(label, kind, given, message):
    with pytest.raises(DataError) as error:
        label(kind).from_row("0", {"prediction": given}, "f:1")
    assert str(error.value) == message


def test_trivial_answers(label):
    examples = [example("b"), example("a", name="1")]

    def labels(kind, train):
        return {name: [each.labels for each in found] for name, found in label(kind).baselines(examples, train).items()}

    assert labels(SINGLE, [example("b"), example("a"), example("b")]) == {"majority": [("b",), ("b",)]}
    assert labels(SINGLE, [example("b"), example("a")]) == {"majority": [("a",), ("a",)]}  # as often: the first by name
    most = [example("x", "a"), example("a", "x"), example("x"), example("a")]  # each label three times, the set most often
    assert labels(MULTI, most) == {"majority": [("a", "x"), ("a", "x")]}
    assert labels(VALUE, [example("1"), example("2.5")]) == {"mean": [("1.75",), ("1.75",)]}
    assert labels(SINGLE, []) == {}


def test_scores(label):
    examples = [example("a"), example("b"), example("b"), example("a")]
    predictions = [LabelPrediction("0", labels, {}) for labels in (("a",), ("b",), ("a",), ())]
    scores = {score.name: score for score in label(metrics={"classification": None}).score(predictions, examples)}
    assert scores["accuracy"].value == pytest.approx(50)  # an empty one is wrong
    # a: precision 1/2, recall 1/2; b: precision 1, recall 1/2
    assert scores["f1_macro"].value == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)
    assert scores["accuracy"].low <= 50 <= scores["accuracy"].high


def test_scores_of_numbers(label):
    examples = [example("1"), example("3"), example("2")]
    predictions = [LabelPrediction("0", (text,), {}) for text in ("10", "20", "30")]
    scores = {score.name: score.value for score in label(VALUE, metrics={"regression": None}).score(predictions, examples)}
    # deviations -1 0 1 and -1 1 0: their product is 1, their squares are 2 each
    assert scores == {"pearson": pytest.approx(50), "spearman": pytest.approx(50), "mae": pytest.approx((9 + 17 + 28) / 3)}

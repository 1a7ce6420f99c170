"""Names of a task become functions, and everything wrong with them is said at once."""

from dataclasses import replace

import pytest

from llmft.config import names
from llmft.config.schema import Formulation, LabelKind, Task
from llmft.data.row import Row
from llmft.data.row_function import apply_row
from llmft.errors import ConfigError
from llmft.metrics.rouge import rouge
from llmft.tasks.baselines import lead_1
from llmft.tasks.bound import BoundMetric, bind_task, measure
from llmft.tasks.text_to_text import TextToText

OWN = """
def short_only(row):
    return None if len(row["a"]) > 3 else {"a": row["a"].upper()}

def own_score(predictions, references, weight=1.0):
    return []

def picky(predictions, references, share=0.5):
    return [share * len(predictions)] if share < 1 else []
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    (tmp_path / "my_task.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


def test_built_in_names():
    found = bind_task(Task(metrics={"rouge": {"use_stemmer": False}}, baselines=["lead_1"]), [])
    assert found.formulation is TextToText
    [metric] = found.metrics
    assert (metric.function, metric.options) == (rouge, {"use_stemmer": False})
    assert found.baselines == {"lead_1": lead_1}
    assert (found.row, found.builtin) == (None, None)


def test_own_functions(plugin):
    task = Task(row="my_task.short_only", metrics={"mine": {"call": "my_task.own_score", "weight": 2.0}})
    found = bind_task(task, ["my_task"])
    assert found.metrics[0].options == {"weight": 2.0}
    assert task.metrics == {"mine": {"call": "my_task.own_score", "weight": 2.0}}  # the settings are recorded later
    rows = [Row({"a": "x"}, "f:1"), Row({"a": "long"}, "f:2"), Row({"a": "yes"}, "f:3")]
    assert list(apply_row(rows, found.row)) == [Row({"a": "X"}, "f:1"), Row({"a": "YES"}, "f:3")]
    assert rows[0].fields == {"a": "x"}
    assert list(apply_row(rows, None)) == rows


def test_everything_wrong_is_said_at_once(plugin):
    task = Task(
        row="my_task.shrot_only", metrics={"rogue": None, "rouge": {"stemmer": True}}, baselines=["lead_1", "my_task.own_score"]
    )
    with pytest.raises(ConfigError) as error:
        bind_task(task, [])
    problems = error.value.problems
    assert [problem.split("=")[0].split(":")[0] for problem in problems] == [
        "task.row",
        "task.metrics.rogue",
        "task.metrics.rouge.stemmer",
        "task.baselines",
    ]
    assert "did you mean rouge" in problems[1].lower()


def test_an_option_of_the_wrong_kind(plugin, monkeypatch):
    """What a signature cannot tell would only show when the tuned model is scored."""
    monkeypatch.setitem(names.METRICS, "picky", "my_task.picky")
    with pytest.raises(ConfigError, match=r"^task\.metrics\.picky: does not work with share=much: .*Correct the options"):
        bind_task(Task(metrics={"picky": {"share": "much"}}), ["my_task"])


LABELS = Task(name="mine", formulation=Formulation.label)
NUMBERS = Task(name="mine", formulation=Formulation.label, label_kind=LabelKind.value)


@pytest.mark.parametrize(
    ("task", "metric", "message"),
    [
        (LABELS, "bleu", "it measures texts, and task=mine predicts labels, which classification can measure."),
        (LABELS, "perplexity", "it measures likelihoods, and task=mine predicts labels, which classification can measure."),
        (
            NUMBERS,
            "classification",
            "it measures labels and texts, and task=mine predicts numbers, which regression can measure.",
        ),
        (
            Task(name="mine", formulation=Formulation.language_model),
            "rouge",
            "it measures texts, and task=mine predicts likelihoods, which perplexity can measure.",
        ),
        (
            Task(name="mine"),
            "regression",
            "it measures numbers, and task=mine predicts texts, which bleu, chrf, ter, rouge, squad, classification, health can measure.",
        ),
    ],
)
def test_a_metric_of_another_kind_of_task(task, metric, message):
    with pytest.raises(ConfigError) as error:
        bind_task(replace(task, metrics={metric: {}}), [])
    assert str(error.value) == f"task.metrics.{metric}: {message} Leave it out: ~task.metrics.{metric}"


def test_texts_may_be_classes():
    """A model that writes the label is scored as one that chooses it."""
    assert bind_task(Task(metrics={"classification": {}}), []).metrics


def test_a_metric_of_ones_own_that_fails():
    metric = BoundMetric("mine", lambda predictions, references: 1 / 0, {}, ())
    with pytest.raises(
        ConfigError, match=r"^task\.metrics\.mine raised ZeroDivisionError: division by zero, at .*test_bound\.py:\d+\. "
    ):
        metric.measure(["a"], [["a"]], {})
    metric = BoundMetric("mine", lambda predictions, references: 0.5, {}, ())
    with pytest.raises(
        ConfigError, match=r"^task\.metrics\.mine returned 0\.5; expected a list of llmft\.metrics\.score\.Score"
    ):
        metric.measure(["a"], [["a"]], {})


def test_a_metric_gets_what_it_asks_for_by_name():
    seen = {}

    def mine(predictions, references, *, sources=None, language="?", labels=None):
        seen.update(sources=sources, language=language, labels=labels)
        return []

    metric = BoundMetric("mine", mine, {}, ("sources", "language", "labels"))
    assert measure([metric], ["a"], [["a"]], 0, sources=["s"], language=None, finish_reasons=["stop"]) == []
    assert seen == {"sources": ["s"], "language": None, "labels": None}


def test_what_the_task_gives_is_no_option():
    with pytest.raises(
        ConfigError, match=r"^task\.metrics\.bleu\.language: a metric gets language from the task\. Leave it out\."
    ):
        bind_task(Task(metrics={"bleu": {"language": "de"}}), [])

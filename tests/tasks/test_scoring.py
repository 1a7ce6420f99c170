"""Predictions and scores: in order, on disk as they come, not made twice; trivial answers; the difference tuning made."""

import json

import pytest
import torch

from llmft.data.example import TextExample, TextPrediction
from llmft.tasks import answers
from llmft.tasks.answers import predict_examples
from llmft.tasks.baselines import lead_1
from llmft.tasks.scoring import Scored, baseline_metrics, differences, score_examples, scored

TEXTS = ["A red fox.", "The dog sleeps.", "One two three four five", "sun", "A function returns a value; so it does."] * 6


@pytest.fixture
def examples():
    return [TextExample(f"r{place}", text + " Then more.", (text,), f"f:{place}") for place, text in enumerate(TEXTS)]


@pytest.fixture
def task(open_text):
    return open_text("gpt2", max_new_tokens=3, metrics={"rouge": {}}, baselines=["lead_1"])


def test_predictions_keep_the_order_of_the_examples(task, examples, tmp_path):
    found = predict_examples(task, iter(examples), tmp_path / "p.jsonl", len(examples), "predicting")
    assert [each.id for each in found] == [each.id for each in examples]
    alone = [next(task.predict([each]))[1] for each in examples]
    assert found == alone  # neither batch nor window changes a text


def test_predictions_go_on_where_a_call_was_stopped(task, examples, tmp_path, monkeypatch):
    whole = predict_examples(task, examples, tmp_path / "whole.jsonl", len(examples), "t")
    calls = []
    predict = task.predict

    def stopped(window):
        calls.append(len(window))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return predict(window)

    monkeypatch.setattr(task, "predict", stopped)
    with pytest.raises(KeyboardInterrupt):
        predict_examples(task, examples, tmp_path / "p.jsonl", len(examples), "t")
    window = answers.WINDOW * task.generation.batch_size
    assert len((tmp_path / "p.jsonl").read_text().splitlines()) == window
    assert predict_examples(task, examples, tmp_path / "p.jsonl", len(examples), "t") == whole
    assert sum(calls[2:]) == len(examples) - window  # what was there was not made again
    assert (tmp_path / "p.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_what_a_kill_left_beside_whole_predictions_is_removed(task, examples, tmp_path):
    path, partial = tmp_path / "test.jsonl", tmp_path / ".test.jsonl.partial"
    first = score_examples(task, examples[:3], path, "t")
    assert not partial.exists()
    partial.write_bytes(path.read_bytes())  # killed before it was removed
    assert score_examples(task, examples[:3], path, "t").rows == first.rows
    assert not partial.exists()


def test_predictions_of_other_inputs_are_not_taken_over(task, examples, tmp_path):
    predict_examples(task, examples[:2], tmp_path / "p.jsonl", 2, "t")
    with pytest.raises(AssertionError, match="predictions of other inputs"):
        predict_examples(task, examples[1:], tmp_path / "p.jsonl", 2, "t")


def test_score_examples_writes_what_it_scored(task, examples, tmp_path, monkeypatch):
    path = tmp_path / "predictions" / "test.jsonl"
    first = score_examples(task, examples, path, "scoring")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == first.rows
    assert [line["id"] for line in lines] == [each.id for each in examples]
    assert lines[0].keys() == {"id", "source", "prediction", "references", "scores", "finish_reason"}
    assert list(path.parent.iterdir()) == [path]
    for name, score in first.scores.items():
        assert score.value == pytest.approx(sum(line["scores"][name] for line in lines) / len(lines))
        assert score.low <= score.value <= score.high
    monkeypatch.setattr(task, "predict", None)  # nothing is predicted again
    assert score_examples(task, examples, path, "scoring").rows == lines


def test_lead_1_is_the_first_sentence_held_to_the_models_length(task, examples):
    assert [lead_1(each) for each in examples[:3]] == ["A red fox.", "The dog sleeps.", "One two three four five Then more."]
    assert lead_1(TextExample("0", "", (), "f:1")) == ""
    found = baseline_metrics(task.formulation, examples, ())
    expected = scored(
        task.formulation, examples, [TextPrediction(each.id, task.limited(lead_1(each)), "stop") for each in examples]
    )
    assert found == {"lead-1": expected.metrics}
    assert 0 < found["lead-1"]["rouge1"].value < 100


def made(task, texts, examples):
    return scored(
        task.formulation, examples, [TextPrediction(each.id, text, "stop") for each, text in zip(examples, texts, strict=True)]
    )


def test_differences_are_paired_by_example(task, examples):
    worse, better = made(task, ["nothing"] * len(TEXTS), examples), made(task, TEXTS, examples)
    found = differences(worse, better, seed=0)
    assert found.keys() == {"rouge1", "rouge2", "rougeL", "rougeLsum"}
    assert found["rouge1"].difference == pytest.approx(100)
    assert found["rouge1"].p < 0.001
    same = differences(better, better, seed=0)["rouge1"]
    assert (same.difference, same.p) == (0.0, 1.0)
    assert differences(None, better, seed=0) == {}


def test_one_example_is_no_sample(task, examples):
    worse, better = made(task, ["nothing"], examples[:1]), made(task, TEXTS[:1], examples[:1])
    assert better.scores["rouge1"].value == pytest.approx(100)
    assert differences(worse, better, seed=0) == {}


def test_direction():
    nothing = Scored({}, [])
    assert nothing.higher_is_better("own") is True
    assert nothing.metrics == {}


@pytest.mark.parametrize("kept", [1, 11, 12, 13, 24, 29, 30])
def test_sampled_texts_do_not_depend_on_where_a_call_was_stopped(open_text, examples, tmp_path, kept):
    task = open_text("gpt2", max_new_tokens=6)
    task.generation.temperature = 2.0
    whole = predict_examples(task, examples, tmp_path / "whole.jsonl", len(examples), "t")
    assert len({each.text for each in whole[:12]}) > 6  # it does sample
    lines = (tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "p.jsonl").write_bytes(b"".join(lines[:kept]))
    state = torch.get_rng_state()
    assert predict_examples(task, examples, tmp_path / "p.jsonl", len(examples), "t") == whole
    assert (tmp_path / "p.jsonl").read_bytes() == b"".join(lines)
    assert torch.equal(torch.get_rng_state(), state)

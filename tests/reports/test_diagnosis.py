import re

import pytest

from llmft.config.schema import TrainRun
from llmft.config.settings import keys
from llmft.reports import diagnosis, outputs
from llmft.reports.diagnosis import DataCounts
from llmft.reports.results import Difference, Metric


def training(losses, every=10):
    return [{"step": step, "loss": loss, "epoch": step / every} for step, loss in enumerate(losses, 1)]


def validations(*losses, start=0, every=10):
    return [{"step": start + every * number, "loss": loss} for number, loss in enumerate(losses)]


def only(findings):
    (finding,) = findings
    return finding.level, finding.text


def test_overfitting_names_the_best_step_and_a_shorter_run():
    train_rows = training([3.0 - 0.05 * step for step in range(1, 41)])
    level, text = only(diagnosis.of_training(train_rows, validations(3.0, 2.5, 2.0, 2.2, 2.4)))
    assert level == "warn"
    # Training loss is the mean over the 4 steps, a tenth of the run, that end at 20 and at 40.
    assert text == (
        "Over-fitting: validation loss rose from 2.000 at step 20 to 2.400 at step 40, while training loss fell from 2.075 "
        "to 1.075. Set training.patience=2 or training.epochs=2, or train on more rows."
    )


def test_both_losses_rising_is_not_overfitting():
    train_rows = training([2.0] * 20 + [4.0] * 20)
    level, text = only(diagnosis.of_training(train_rows, validations(3.0, 2.5, 2.0, 2.2, 2.4)))
    assert level == "warn"
    assert text.startswith("Unstable: validation loss rose from 2.000 at step 20 to 2.400 at step 40")
    assert "optimizer.lr" in text


def test_worse_than_the_untuned_model_from_the_first_validation():
    assert only(diagnosis.of_training([], validations(2.0, 2.5, 2.4)))[0] == "bad"


def test_still_falling_at_the_end():
    level, text = only(diagnosis.of_training([], validations(3.0, 2.5, 2.2)))
    assert (level, text.split(".")[0]) == ("warn", "Validation loss was still falling at the end: 2")
    assert "2.500 at step 10, 2.200 at step 20" in text
    assert "training.epochs" in text


def test_level_at_the_end_is_fine():
    assert only(diagnosis.of_training([], validations(3.0, 2.2, 2.199))) == (
        "ok",
        "Validation loss fell from 3.000 (step 0) to 2.199 (step 20) and was level at the end.",
    )


def test_one_validation_after_the_untuned_model_says_nothing_about_the_end():
    assert only(diagnosis.of_training([], validations(3.0, 2.2))) == (
        "ok",
        "Validation loss fell from 3.000 (step 0) to 2.200 (step 10).",
    )
    assert diagnosis.of_training([], validations(3.0)) == []


def metric(value, half=1.0, n=96, higher_is_better=True):
    return Metric(value, value - half, value + half, n, "s", higher_is_better)


@pytest.mark.parametrize(
    ("change", "higher_is_better", "level"),
    [
        (Difference(2.0, 1.0, 3.0, 0.01, 96), True, "ok"),
        (Difference(2.0, 1.0, 3.0, 0.01, 96), False, "bad"),
        (Difference(-2.0, -3.0, -1.0, 0.01, 96), True, "bad"),
        (Difference(-2.0, -3.0, -1.0, 0.01, 96), False, "ok"),
        (Difference(2.0, -0.5, 4.5, 0.1, 96), True, "warn"),
    ],
)
def test_gain_is_judged_by_the_interval_and_the_direction_of_the_score(change, higher_is_better, level):
    assert only(diagnosis.of_gain({"score": metric(30.0, higher_is_better=higher_is_better)}, {"score": change}))[0] == level


def test_scores_with_the_same_outcome_share_a_sentence():
    change = Difference(2.0, 1.0, 3.0, 0.01, 96)
    text = only(diagnosis.of_gain({"rouge1": metric(40.0), "rougeL": metric(30.0)}, {"rouge1": change, "rougeL": change}))[1]
    assert "rouge1 by +2.00 [1.00, 3.00] to 40.00; rougeL by +2.00 [1.00, 3.00] to 30.00" in text


def test_a_trivial_baseline_that_is_not_beaten():
    text = only(diagnosis.of_baselines({"rougeL": metric(23.0)}, {"lead-1": {"rougeL": metric(24.0)}}))[1]
    assert text.startswith("Not better than the trivial baseline lead-1: rougeL 23.00 against 24.00.")
    assert diagnosis.of_baselines({"rougeL": metric(25.0)}, {"lead-1": {"rougeL": metric(24.0)}}) == []


def test_small_test_set_says_how_many_rows_would_do():
    # ±20 % with 100 rows; ±5 % is a quarter of that and takes 16 times the rows.
    text = only(diagnosis.of_size({"rouge1": metric(40.0, 1.0, 100), "rougeL": metric(20.0, 4.0, 100)}))[1]
    assert "with n=100, rougeL is 20.00 [16.00, 24.00], that is ±20%" in text
    assert "About 1,600 rows" in text
    assert diagnosis.of_size({"rougeL": metric(20.0, 1.9, 100)}) == []


def test_data():
    counts = DataCounts(
        rows={"train": 1000, "test": 50, "validation": 1000},
        sources_cut={"train": 51, "test": 1, "validation": 0},
        duplicates=11,
        overlap={"test": 1, "validation": 10},
    )
    findings = diagnosis.of_data(counts)
    assert [finding.level for finding in findings] == ["warn", "ok", "warn", "bad", "warn"]
    assert "51 of 1,000 sources in train (5.1%)" in findings[0].text
    assert "task.max_source_tokens" in findings[0].text
    assert "11 of 1,000 training rows (1.1%)" in findings[2].text
    assert "1 of 50 test rows (2.0%)" in findings[3].text
    assert diagnosis.of_data(DataCounts(rows={"train": 10})) == []


def prediction(text, source="a long source text", reference="something else", finish_reason="stop"):
    return {"id": "1", "source": source, "prediction": text, "references": [reference], "finish_reason": finish_reason}


def different(count):
    return [prediction(f"A sound answer number {number}.", reference=f"Reference {number}.") for number in range(count)]


def test_sound_predictions():
    assert only(outputs.diagnose(different(10)))[0] == "ok"
    assert outputs.diagnose([]) == []


@pytest.mark.parametrize(
    ("odd", "level", "part"),
    [
        ([prediction(" \n")], "bad", "1 of 10 predictions are empty"),
        (
            [prediction("cut", finish_reason="length"), prediction("off", finish_reason="length")],
            "warn",
            "2 of 10 predictions were cut off",
        ),
        ([prediction("on and on and on and on")], "warn", "1 of 10 predictions repeat 4 words in a row (references: 0)"),
        (
            [prediction("The quick  brown fox jumps.", "Yes: the quick brown fox jumps over")],
            "warn",
            "1 of 10 predictions are copied",
        ),
        ([prediction("Yes.", reference=f"{n}") for n in range(3)], "bad", "3 of 10 predictions are the same text. The model"),
    ],
)
def test_odd_predictions(odd, level, part):
    found_level, text = only(outputs.diagnose(different(10 - len(odd)) + odd))
    assert found_level == level
    assert part in text


def test_what_the_model_says_is_quoted_apart_from_the_sentence():
    """The sentence goes into the model card, which shows no text that could stand in the data."""
    [finding] = outputs.diagnose(different(7) + [prediction("My name is Ann.", reference=f"{n}") for n in range(3)])
    assert "Ann" not in finding.text
    assert finding.whole().endswith(" The text: 'My name is Ann.'")
    rows = [prediction("Ann", reference=f"{n}") for n in range(4)]
    for row in rows:
        del row["finish_reason"]
    [finding] = outputs.diagnose(rows)
    assert ("Ann" not in finding.text, finding.quote) == (True, "Ann")


def test_what_references_do_too_is_not_odd():
    labels = [prediction("Yes.", reference="Yes.") for _ in range(10)]
    songs = [prediction(f"la la la la la {n}", reference=f"la la la la la la {n}") for n in range(10)]
    assert only(outputs.diagnose(labels))[0] == "ok"
    assert only(outputs.diagnose(songs))[0] == "ok"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("on and on and on and", True),
        ("one two three four", False),
        ("one two three one two", False),
        ("东京东京东京东京", True),
        ("", False),
    ],
)
def test_repetition(text, expected):
    assert outputs.repeats_itself(text) is expected


def test_a_conversation_is_searched_for_copies_too():
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "The quick brown fox jumps over it."}]
    assert outputs.source_text(turns) == "Be brief.\nThe quick brown fox jumps over it."


def test_worst_first_and_every_setting_named_is_a_real_one():
    settings = set(keys(TrainRun))
    odd = [prediction(""), prediction("on and on and on and on", finish_reason="length"), prediction("yes"), prediction("yes")]
    findings = []
    changes = {"a": Difference(2, 1, 3, 0, 9), "b": Difference(-2, -3, -1, 0, 9), "c": Difference(0, -1, 1, 1, 9)}
    metrics = {name: metric(20.0, 5.0) for name in changes}
    counts = DataCounts({"train": 10, "test": 10}, {"train": 9}, 9, {"test": 9})
    for losses in ((3, 2, 1), (3, 2, 2.5), (2, 3, 3)):
        rows = training([3.0 - 0.05 * step for step in range(1, 31)])
        found = diagnosis.diagnose(rows, validations(*losses), metrics, changes, {"lead-1": {"a": metric(30.0)}}, odd, counts)
        levels = [finding.level for finding in found]
        assert levels == sorted(levels, key=["bad", "warn", "ok"].index)
        findings += found
    text = " ".join(finding.text for finding in findings)
    named = set(re.findall(r"\b((?:task|model|adapter|optimizer|schedule|training|generation)\.[a-z_.]*[a-z_])", text))
    assert len(named) >= 12
    assert named <= settings, named - settings
    for finding in findings:
        if finding.level != "ok":
            assert re.search(r"\d", finding.text), finding.text
            assert any(key in finding.text for key in settings), finding.text

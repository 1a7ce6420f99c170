import json

import pytest

from llmft.config.schema import Gate
from llmft.errors import ConfigError, DataError
from llmft.metrics.score import Score
from llmft.reports import results
from llmft.reports.results import GateResult, Metric, Results

METRICS = {
    "rougeL": Metric(30.0, 28.0, 32.0, 96, "rouge"),
    "perplexity": Metric(12.0, None, None, 96, "ppl", higher_is_better=False),
}
BASELINE = Results(
    "t",
    1,
    "m",
    "test",
    96,
    {"rougeL": Metric(30.5, 29.0, 32.0, 96, "rouge"), "perplexity": Metric(11.0, None, None, 96, "ppl", False)},
)


def test_a_file_read_back_is_the_same(tmp_path, sample):
    sample.results.write(tmp_path / "results.json")
    assert results.read(tmp_path / "results.json") == sample.results
    values = json.loads((tmp_path / "results.json").read_text())
    assert values["schema_version"] == 1
    assert values["paired"]["rougeL"] == {"difference": 12.8, "low": 11.6, "high": 14.0, "p": 0.0002, "n": 96}
    assert values["objective"] == {"name": "rougeL", "value": 31.2, "higher_is_better": True}


def test_an_evaluation_has_no_training(tmp_path):
    BASELINE.write(tmp_path / "results.json")
    assert results.read(tmp_path / "results.json").train is None


def test_a_score_keeps_its_values_per_example_to_itself():
    score = Score("rougeL", 30.0, 2, "rouge", parts={"precision": 31.0}, per_example=(20.0, 40.0))
    assert Metric.of(score) == Metric(30.0, None, None, 2, "rouge", True, {"precision": 31.0})


def test_infinity_becomes_null(tmp_path):
    run = Results("t", 1, "m", "test", 1, {"perplexity": Metric(float("inf"), None, None, 1, "ppl", False)})
    run.write(tmp_path / "results.json")
    assert results.read(tmp_path / "results.json").metrics["perplexity"].value is None


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "not valid JSON"),
        ("[]", "schema_version is None; this llmft reads 1"),
        ('{"schema_version": 2}', "schema_version is 2; this llmft reads 1"),
        ('{"schema_version": 1, "task": "t"}', "not the fields of a results.json"),
    ],
)
def test_a_file_that_is_no_results(tmp_path, text, part):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        results.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert part in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="no such file; expected the results of a finished run"):
        results.read(tmp_path / "results.json")


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        (Gate(min={"rougeL": 30}), GateResult("rougeL", "min", 30, 30.0, True)),
        (Gate(min={"rougeL": 30.1}), GateResult("rougeL", "min", 30.1, 30.0, False)),
        (Gate(max={"perplexity": 12}), GateResult("perplexity", "max", 12, 12.0, True)),
        (Gate(max={"perplexity": 11.9}), GateResult("perplexity", "max", 11.9, 12.0, False)),
        (Gate(baseline="r", max_drop={"rougeL": 0.5}), GateResult("rougeL", "max_drop", 0.5, 0.5, True)),
        (Gate(baseline="r", max_drop={"rougeL": 0.4}), GateResult("rougeL", "max_drop", 0.4, 0.5, False)),
        # Perplexity is worse when it is higher: from 11 to 12 is a drop of 1.
        (Gate(baseline="r", max_drop={"perplexity": 0.9}), GateResult("perplexity", "max_drop", 0.9, 1.0, False)),
    ],
)
def test_gates(gate, expected):
    assert results.check_gates(gate, METRICS, BASELINE) == [expected]


def test_a_value_that_is_not_finite_meets_no_gate():
    metrics = {"perplexity": Metric(None, None, None, 1, "ppl", False)}
    gates = results.check_gates(Gate(min={"perplexity": 0}, max={"perplexity": 1e9}), metrics, None)
    assert [gate.met for gate in gates] == [False, False]


def test_gate_problems_come_all_at_once():
    with pytest.raises(ConfigError) as caught:
        results.check_gates(Gate(min={"bleu": 30}, max_drop={"rougeL": 1}), METRICS, None)
    assert caught.value.problems == (
        "gate.min.bleu: no score of that name; this run has perplexity, rougeL. Correct the name or add it to task.metrics.",
        "gate.max_drop.rougeL: nothing to compare with. Name a finished run: gate.baseline=RUN.",
    )


def test_gate_sentences():
    assert GateResult("rougeL", "min", 30.0, 27.125, False).sentence() == "rougeL is 27.125, gate.min.rougeL=30: not met"
    assert (
        GateResult("rougeL", "max_drop", 0.5, 0.25, True).sentence()
        == "rougeL got worse by 0.25, gate.max_drop.rougeL=0.5: met"
    )


def nested(depth):
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"metrics": {"rougeL": 3}}, "results.metrics.rougeL is 3"),
        ({"metrics": {"rougeL": {"value": "31"}}}, "results.metrics.rougeL: no low, high, n, signature"),
        ({"n": 1.5}, "results.n is 1.5"),
        ({"n": True}, "results.n is True"),
        ({"task": None}, "results.task is None"),
        ({"seconds": "x" * 100}, "results.seconds is 'xxx"),
        ({"checks": {}}, "results.checks is {}"),
        ({"checks": [{"level": "ok", "text": "", "call": "os.system"}]}, "results.checks.0: unknown call"),
        ({"__class__": "x"}, "results: unknown __class__"),
        ({"gates": [["rougeL"]]}, "results.gates.0 is ['rougeL']"),
        ({"seconds": 10**400}, "results.seconds is 1000"),
    ],
)
def test_fields_of_other_types(tmp_path, change, part):
    path = tmp_path / "results.json"
    BASELINE.write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError) as caught:
        results.read(path)
    assert str(caught.value).startswith(f"{path}: not the fields of a results.json ({part}")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (nested(100_000), "not valid JSON"),
        ('{"schema_version": 1, "n": NaN}', "not valid JSON (NaN is no number in JSON)"),
        ('{"schema_version": -Infinity}', "not valid JSON"),
        (" " * (results.MOST_BYTES + 1), "16,777,217 bytes"),
        ("[]", "schema_version is None"),
    ],
    ids=["deep", "NaN", "Infinity", "large", "list"],
)
def test_files_that_no_run_wrote(tmp_path, text, part):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        results.read(path)
    assert str(caught.value).startswith(f"{path}: {part}")


def test_a_folder_in_its_place(tmp_path):
    (tmp_path / "results.json").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        results.read(tmp_path / "results.json")

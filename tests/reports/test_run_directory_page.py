"""docs/run-directory.md says what the files hold; here it is held against the files."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from llmft.config.schema import Formulation, Task, TrainRun
from llmft.data.example import (
    DocumentExample,
    DocumentPrediction,
    LabelExample,
    LabelPrediction,
    SpanExample,
    SpanPrediction,
    TextExample,
    TextPrediction,
)
from llmft.reports import results
from llmft.reports.record import Record, read
from llmft.runs.directory import claim
from llmft.runs.status import STATES, Status
from llmft.tasks.bound import bind_task
from llmft.tasks.scoring import scored
from llmft.train import write_settings
from llmft.training.memory import Plan

PAGE = (Path(__file__).parents[2] / "docs" / "run-directory.md").read_text(encoding="utf-8")


def tables():
    """Heading -> first column of the table below it -> the other column."""
    found = {}
    for section in re.split(r"^#{1,3} ", PAGE, flags=re.MULTILINE)[1:]:
        heading, body = section.split("\n", 1)
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines() if line.startswith("|")]
        if rows:
            found[heading] = {row[0]: row[1] for row in rows[2:]} if len(rows[0]) == 2 else {row[0]: row[2] for row in rows[2:]}
    return found


TABLES = tables()


def names(kind):
    return {field.name for field in dataclasses.fields(kind)}


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("config.yaml", TrainRun),
        ("status.json", Status),
        ("plan.json", Plan),
        ("results.json", results.Results),
        ("score", results.Metric),
        ("difference", results.Difference),
        ("objective", results.Objective),
        ("gate", results.GateResult),
        ("train", results.TrainSummary),
        ("finding", results.Finding),
    ],
)
def test_fields_are_those_of_the_dataclass(heading, kind):
    assert set(TABLES[heading]) == names(kind)


def test_versions():
    assert TABLES["results.json"]["schema_version"] == str(results.SCHEMA_VERSION)
    assert TABLES["status.json"]["schema_version"] == str(Status("done", 1, "h", "s", "f", []).schema_version)


def test_states():
    assert set(re.findall(r"`(\w+)`", TABLES["status.json"]["state"])) == set(STATES)


def test_environment(tmp_path):
    write_settings(claim(str(tmp_path), None, "x", "f", "auto", ["llmft"]), TrainRun(), None)
    (path,) = tmp_path.rglob("environment.json")
    assert set(TABLES["environment.json"]) == set(json.loads(path.read_bytes()))


def test_rows_of_metrics(tmp_path):
    record = Record(tmp_path / "metrics.jsonl", 1)
    record.step(1, loss=1.0, lr=1e-4, grad_norm=1.0, tokens=1, seconds=1.0, memory_bytes=1, epoch=1.0)
    record.validation(1, {"loss": 1.0})
    record.close()
    (train_row,), (validation_row,) = read(tmp_path / "metrics.jsonl")
    assert set(TABLES["kind: train"]) == set(train_row)
    assert set(TABLES["kind: validation"]) == set(validation_row)


def test_rows_of_predictions():
    found = set()
    for formulation, example, prediction in (
        (Formulation.text_to_text, TextExample("1", "source", ("t",), "f:1", "context"), TextPrediction("1", "t", "stop")),
        (Formulation.span, SpanExample("1", "q", "a t", ("t",), (2,), "f:1"), SpanPrediction("1", "t", 2, 3, 1.0, 0.0)),
        (Formulation.label, LabelExample("1", "s", None, ("t",), "f:1"), LabelPrediction("1", ("t",), {"t": 1.0})),
        (Formulation.language_model, DocumentExample("1", "s", "f:1"), DocumentPrediction("1", 1.0, 2, 3)),
    ):
        task = Task(formulation=formulation, context="{c}" if formulation is Formulation.span else None)
        bound = bind_task(task, [])
        found |= set(scored(bound.formulation(task, bound, 0), [example], [prediction]).rows[0])
    assert set(TABLES["predictions/SPLIT.jsonl"]) == found


def test_every_file_of_the_overview_that_has_fields_is_described():
    files = set(TABLES["The run directory"])
    described = {heading for heading in TABLES if "." in heading or "/" in heading}
    assert described <= files
    assert len(files) >= 14

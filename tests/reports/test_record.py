import json

from llmft.reports import record
from llmft.reports.record import Record


def write(path, every, steps):
    rows = Record(path, every)
    for step in steps:
        rows.step(step, loss=3.0 / step, lr=1e-4, grad_norm=0.5, tokens=100, seconds=0.25, memory_bytes=1024, epoch=step / 4)
        if step % 4 == 0:
            rows.validation(step, {"loss": 2.0 / step, "rougeL": 10.0 + step})
    rows.close()


def test_first_and_due_steps_are_written_with_all_fields(tmp_path):
    write(tmp_path / "metrics.jsonl", 3, range(1, 9))
    train_rows, validation_rows = record.read(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in train_rows] == [1, 3, 6]
    assert train_rows[1] == {
        "kind": "train",
        "step": 3,
        "epoch": 0.75,
        "loss": 1.0,
        "lr": 1e-4,
        "grad_norm": 0.5,
        "skipped": False,
        "tokens": 100,
        "seconds": 0.25,
        "memory_bytes": 1024,
    }
    assert validation_rows == [
        {"kind": "validation", "step": 4, "loss": 0.5, "rougeL": 14.0},
        {"kind": "validation", "step": 8, "loss": 0.25, "rougeL": 18.0},
    ]


def test_a_skipped_step_is_always_written(tmp_path):
    rows = Record(tmp_path / "metrics.jsonl", 5)
    for step in (2, 3):
        rows.step(step, 1.0, 1e-4, 9.0, tokens=1, seconds=1.0, memory_bytes=1, epoch=1.0, skipped=step == 3)
    assert [(row["step"], row["skipped"]) for row in record.read(tmp_path / "metrics.jsonl")[0]] == [(3, True)]


def test_rows_are_on_disk_before_close(tmp_path):
    rows = Record(tmp_path / "metrics.jsonl", 1)
    rows.validation(0, {"loss": 3.5})
    assert record.read(tmp_path / "metrics.jsonl")[1][0]["loss"] == 3.5
    rows.close()


def test_a_resumed_run_has_every_step_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, 1, range(1, 9))
    Record.resume(path, 5, validated=4)
    write(path, 1, range(6, 9))
    train_rows, validation_rows = record.read(path)
    assert [row["step"] for row in train_rows] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [row["step"] for row in validation_rows] == [4, 8]


def test_a_validation_that_no_checkpoint_knows_of_is_recorded_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = Record(path, 1)
    rows.validation(0, {"loss": 3.5})
    rows.close()
    Record.resume(path, 0, validated=None)  # killed before the first checkpoint: step 0 is validated again
    assert record.read(path) == ([], [])
    write(path, 1, range(1, 9))
    Record.resume(path, 8, validated=4)  # stopped while validating step 8, killed after that was recorded
    assert [[row["step"] for row in rows] for rows in record.read(path)] == [[1, 2, 3, 4, 5, 6, 7, 8], [4]]


def test_nothing_recorded_yet(tmp_path):
    Record.resume(tmp_path / "metrics.jsonl", 5, validated=None)
    assert record.read(tmp_path / "metrics.jsonl") == ([], [])


def test_not_finite_is_null(tmp_path):
    rows = Record(tmp_path / "metrics.jsonl", 1)
    rows.validation(1, {"perplexity": float("inf")})
    rows.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"kind": "validation", "step": 1, "perplexity": None}

"""The table: which columns it has, what it marks, how it fits a terminal. Rows are made by hand."""

import dataclasses
from pathlib import Path

import pytest

from llmft.reports.results import Objective
from llmft.sweep import table
from llmft.sweep.rows import Row, best

LR = "optimizer.lr"


def row(
    number: int, overrides: list[str], value: float | None, name: str = "rougeL", higher: bool = True, code: int = 0
) -> Row:
    target = Objective(name, value, higher) if code == 0 else None
    metrics = {name: value, "rouge1": 40.123, "rouge2": 20.0, "loss": 1.5} if code == 0 else {}
    state = "done" if code == 0 else "failed"
    return Row(number, overrides, state, code, None if code == 0 else "a.csv:1: bad\nmore", f"s/{number:03d}", target, metrics)


ROWS = [
    row(0, [f"{LR}=1e-4", "adapter.r=8", "model=gpt2"], 30.5),
    row(1, [f"{LR}=1e-4", "adapter.r=16", "model=gpt2"], 31.25),
    row(2, [f"{LR}=0.00031622776601683794", "adapter.r=8", "model=gpt2"], None, code=4),
]


def shown(rows: list[Row], capfd: pytest.CaptureFixture[str]) -> list[str]:
    table.show(Path("s"), rows)
    return [line.rstrip() for line in capfd.readouterr().err.splitlines()]


def test_plain(capfd: pytest.CaptureFixture[str]) -> None:
    assert shown(ROWS, capfd) == [
        "",
        "sweep s: 2 of 3 jobs done",
        "all jobs: model=gpt2",
        "job    lr         r   state   exit  rougeL  rouge1  rouge2   loss",
        "000    1e-4       8   done    0      30.50   40.12   20.00  1.500",
        "001 *  1e-4       16  done    0      31.25   40.12   20.00  1.500",
        "002    0.0003162  8   failed  4          -       -       -      -",
        "002: a.csv:1: bad",
        "* best: rougeL 31.25 (higher is better), s/001",
        "the same command again runs what did not end with 0",
    ]


@pytest.mark.parametrize("width", [50, 80])
def test_a_terminal_is_not_overrun(width: int, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))
    many = [dataclasses.replace(each, metrics=each.metrics | {f"score{i}": 1.0 for i in range(9)}) for each in ROWS[:2]]
    lines = [line.replace("\x1b[1m", "").replace("\x1b[0m", "").rstrip() for line in shown(many, capfd)]
    head = next(line for line in lines if line.startswith("job"))
    assert head.split()[:5] == ["job", "r", "state", "exit", "rougeL"]
    assert width - 12 <= len(head) <= width
    assert "score8" not in head


def test_keys_that_end_alike_are_written_out(capfd: pytest.CaptureFixture[str]) -> None:
    rows = [row(0, ["a.name=x", "b.name=x", "+c=1"], 1.0), row(1, ["a.name=y", "b.name=z"], 2.0)]
    assert shown(rows, capfd)[2].split()[:4] == ["job", "a.name", "b.name", "+c"]


def test_values_are_shortened() -> None:
    given = ["0.00031622776601683794", "1e-4", "'{document}'", '"a, b"', "'", "google/gemma-3", "123456789"]
    assert [table._short(value) for value in given] == [
        "0.0003162",
        "1e-4",
        "{document}",
        "a, b",
        "'",
        "google/gemma-3",
        "123456789",
    ]


def test_best() -> None:
    assert best(ROWS) is ROWS[1]
    lower = [row(0, [], 2.0, "loss", higher=False), row(1, [], 1.0, "loss", higher=False)]
    assert best(lower) is lower[1]
    assert best([row(0, [], 2.0, "loss", higher=False), row(1, [], 1.0)]) is None  # a loss and a rougeL
    assert best([row(0, [], None), row(1, [], None)]) is None
    assert best([]) is None

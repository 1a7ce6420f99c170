"""The record of runs, and the figures that are made of it."""

from dataclasses import replace
from pathlib import Path

from scripts.bench.measured import Measured, append, ratios, read, spread

RUN = Measured(
    "lora", "llmft", "", 0, "abc", "2026-01-01T00:00:00", 2.0, 9.0, 10.0, 11.0, 12.0, 1 << 30, 0.01, losses=[3.0, 2.5]
)


def speed(run: Measured) -> float:
    """What is compared."""
    return run.per_second


def test_record_survives_a_kill(tmp_path: Path):
    """What was appended is read back; a line that a kill has cut is left out, and so is one with other figures."""
    path = tmp_path / "out" / "runs.jsonl"
    assert read(path) == []
    append(path, RUN)
    with path.open("a") as file:
        file.write('{"work": "lora"}\n{"work": "lo')
    assert read(path) == [RUN]
    append(path, replace(RUN, round=1))
    assert read(path) == [RUN, replace(RUN, round=1)]


def test_spread():
    """The median of an even number is the mean of the two in the middle."""
    assert spread([4.0, 1.0, 3.0, 2.0]) == spread([1.0, 2.0, 3.0, 4.0])
    found = spread([4.0, 1.0, 3.0, 2.0])
    assert (found.median, found.low, found.high, found.n) == (2.5, 1.0, 4.0, 4)
    assert found.text(1) == "2.5 (1.0 to 4.0)"
    assert spread([1234.5]).text(1) == "1,234.5"


def test_ratios_are_taken_within_rounds():
    """A slow machine in one round slows both; a round that one of them lacks does not count."""
    ours = [replace(RUN, round=number, per_second=value) for number, value in ((0, 4.0), (1, 2.0), (2, 8.0))]
    others = [replace(RUN, round=number, per_second=value) for number, value in ((1, 1.0), (0, 2.0))]
    found = ratios(ours, others, speed)
    assert found is not None
    assert (found.median, found.low, found.high, found.n) == (2.0, 2.0, 2.0, 2)
    assert ratios(ours[2:], others, speed) is None

import os
import pty
import re
import subprocess
import sys

import pytest
from rich.console import Console

from llmft.reports import console
from llmft.reports.console import Count, Progress
from llmft.reports.results import Finding


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves: clock[0] += seconds."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def lines(capfd):
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "\r" not in captured.err
    assert "\x1b" not in captured.err
    return [line.rstrip() for line in captured.err.splitlines()]


def test_plain_lines_come_first_every_ten_seconds_and_last(clock, capfd):
    with Progress(10) as progress:
        for step in range(1, 11):
            clock[0] += 4
            progress.step(step, loss=2.0 / step, lr=2e-4, tokens_per_s=4128.4, memory_bytes=1536 << 20)
    assert lines(capfd) == [
        "step 1/10  loss 2.0000  lr 2.00e-04  4,128 tokens/s  1.5 GiB  36 s left",
        "step 4/10  loss 0.5000  lr 2.00e-04  4,128 tokens/s  1.5 GiB  24 s left",
        "step 7/10  loss 0.2857  lr 2.00e-04  4,128 tokens/s  1.5 GiB  12 s left",
        "step 10/10  loss 0.2000  lr 2.00e-04  4,128 tokens/s  1.5 GiB",
    ]


def test_a_resumed_run_counts_the_time_of_its_own_steps(clock, capfd):
    with Progress(100, start=50) as progress:
        clock[0] += 5
        progress.step(55, loss=1.0, lr=1e-4, tokens_per_s=1, memory_bytes=0)
        progress.note("validation loss 1.5 [best]")
    assert lines(capfd) == [
        "step 55/100  loss 1.0000  lr 1.00e-04  1 tokens/s  0 bytes  45 s left",
        "validation loss 1.5 [best]",
    ]


def test_scoring_and_a_total_nobody_knows(clock, capfd):
    with Count("scoring the untuned model", 96) as count:
        count.to(96)
    with Count("predicting", None) as count:
        count.to(12)
    assert lines(capfd) == ["scoring the untuned model 96/96", "predicting 12"]


def test_a_finding_is_one_line_with_brackets_kept_and_the_worst_comes_first(capfd):
    console.show_findings([Finding("ok", "fine"), Finding("bad", "[red]loss[/red] " + "long " * 60), Finding("warn", "cut")])
    assert lines(capfd) == ["bad  [red]loss[/red] " + "long " * 59 + "long", "warn cut", "ok   fine"]


def test_on_a_terminal_a_finding_is_wrapped_at_words_beside_its_level(monkeypatch, capfd):
    terminal = Console(stderr=True, highlight=False, force_terminal=True, width=22, no_color=True)
    monkeypatch.setattr(console, "_console", lambda: terminal)
    console.show_findings([Finding("warn", "Raise task.x, or train longer.")])
    found = re.sub(r"\x1b\[\d*m", "", capfd.readouterr().err)
    assert [line.rstrip() for line in found.splitlines()] == ["warn Raise task.x, or", "     train longer."]


def test_plan(capfd):
    console.show_plan({"steps": 1200, "free_bytes": 3 << 30, "tokens": {"longest": 512}})
    assert lines(capfd) == ["Plan", "  steps   1,200", "  free    3.0 GiB", "  tokens", "    longest  512"]


def test_scores(sample, capfd):
    results = sample.results
    console.show_scores(results.before, results.metrics, results.paired, results.baselines)
    cells = [line.split() for line in lines(capfd)]
    assert ["rougeL", "18.40", "31.20", "[29.95,", "32.45]", "+12.80", "[11.60,", "14.00]", "<0.001", "24.00"] in cells
    assert ["loss", "3.310", "1.600"] in cells


def test_scores_of_a_plain_model(sample, capfd):
    console.show_scores(None, sample.results.metrics, {}, {})
    cells = [line.split() for line in lines(capfd)]
    assert ["score", "value", "[95", "%]"] in cells
    assert ["loss", "1.600"] in cells


def test_no_scores(capfd):
    console.show_scores(None, {}, {}, {})
    assert lines(capfd) == []


def test_next(capfd):
    console.show_next(["llmft eval run=outputs/" + "x" * 200])
    assert lines(capfd) == ["Next", "  llmft eval run=outputs/" + "x" * 200]


SCRIPT = """
from llmft.reports.console import Progress, show_findings
from llmft.reports.results import Finding
with Progress(2) as progress:
    progress.step(1, loss=1.0, lr=1e-4, tokens_per_s=10, memory_bytes=1)
    progress.note("validated")
    progress.step(2, loss=0.5, lr=1e-4, tokens_per_s=10, memory_bytes=1)
show_findings([Finding("warn", "careful")])
"""


def on_a_terminal(**environment):
    """What SCRIPT writes to a stderr that is a terminal."""
    main, side = pty.openpty()
    kept = {
        name: value for name, value in os.environ.items() if name not in ("CI", "NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS")
    }
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stderr=side, stdout=subprocess.PIPE, env=kept | environment)
    os.close(side)
    written = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # Linux says EIO when the other side is gone
            break
        if not part:
            break
        written += part
    os.close(main)
    out, _ = process.communicate()
    assert process.returncode == 0
    assert out == b""
    return written.decode()


def test_a_bar_on_a_terminal():
    written = on_a_terminal(TERM="xterm-256color")
    assert "━" in written
    assert "\x1b[2K" in written
    assert "validated" in written


def test_no_colour_where_none_is_wanted():
    assert "\x1b[33mwarn" in on_a_terminal(TERM="xterm-256color")
    written = on_a_terminal(TERM="xterm-256color", NO_COLOR="1")
    assert "warn careful" in written
    assert "\x1b[33m" not in written


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"TERM": "xterm", "CI": "true"}, {}])
def test_no_bar_where_it_would_spoil_a_log(environment):
    written = on_a_terminal(**environment)
    assert "\x1b[2K" not in written
    assert "\x1b[?25l" not in written
    assert "step 1/2  loss 1.0000" in written
    assert "step 2/2  loss 0.5000" in written

"""What a person sees while llmft works, all of it on stderr: bars on a terminal, plain lines elsewhere."""

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from llmft.config.shown import shown as shown_text
from llmft.reports.results import Difference, Finding, Metric
from llmft.reports.units import (
    count_text,
    duration_text,
    entry_name,
    entry_text,
    interval_text,
    memory_text,
    p_text,
    score_text,
)

PLAIN_EVERY_S = 10.0
LOG_WIDTH = 160
COLOURS = {"bad": "bold red", "warn": "yellow", "ok": "green"}
"""Levels of findings, the worst first."""


_log: TextIO | None = None  # the run's train.log, while there is one


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Write what is said inside the block to a file as well, behind what it holds; a bar's steps are in metrics.jsonl."""
    global _log
    # Not through a link: a run directory that somebody else made may have one, to any file of the user.
    with open(path, "a", encoding="utf-8", buffering=1, opener=_not_linked) as _log:
        try:
            yield
        finally:
            _log = None


def _not_linked(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NOFOLLOW, 0o666)


def lively() -> bool:
    """True where a bar may redraw itself: a terminal that is not dumb and not the log of a CI job."""
    return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb") and not os.environ.get("CI")


class Count:
    """Something counted towards a total: `with Count("scoring the untuned model", 96) as count: count.to(12)`.

    `total` is None or 0 where nobody knows it; `start`: how many are done already, of a run that goes on.
    """

    def __init__(self, title: str, total: int | None, start: int = 0):
        self.title, self.total, self.start, self.done = title, total or None, start, start
        self.began = time.monotonic()
        self.printed = self.began - PLAIN_EVERY_S
        self.shown = start
        self.bars: Bars | None = None
        if lively():
            columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), MofNCompleteColumn())
            detail = TextColumn("{task.fields[detail]}", markup=False)
            self.bars = Bars(*columns, detail, console=_console(), transient=True)
            self.task = self.bars.add_task(title, total=self.total, completed=start, detail="")

    def __enter__(self) -> "Count":
        if self.bars:
            self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars:
            self.bars.stop()

    def to(self, done: int, detail: str = "") -> None:
        """Move to `done` of the total. Plain lines come for the first, every 10 s, and for the last."""
        self.done = done
        now = time.monotonic()
        detail = "  ".join(part for part in (detail, self._left(now)) if part)
        if self.bars:
            self.bars.update(self.task, completed=done, detail=detail)
        elif now - self.printed >= PLAIN_EVERY_S or (done == self.total and self.shown != done):
            self.printed, self.shown = now, done
            count = f"{self.title} {done}/{self.total}" if self.total else f"{self.title} {done}"
            _line("  ".join(part for part in (count, detail) if part))

    def note(self, text: str) -> None:
        """Say one line without disturbing the bar."""
        if self.bars:
            self.bars.console.print(_text(text), soft_wrap=True)
            if _log:
                _logging(_log).print(_text(text), soft_wrap=True)
        else:
            _line(text)

    def _left(self, now: float) -> str:
        moved = self.done - self.start
        if not moved or self.total is None or self.done >= self.total:
            return ""
        return f"{duration_text((self.total - self.done) * (now - self.began) / moved)} left"


class Progress(Count):
    """The training bar: `with Progress(total, start) as progress: progress.step(step, loss=..., ...)`."""

    def __init__(self, total: int, start: int = 0):
        super().__init__("step", total, start)

    def __enter__(self) -> "Progress":
        super().__enter__()
        return self

    def step(self, step: int, loss: float, lr: float, tokens_per_s: float, memory_bytes: int) -> None:
        """Show the finished step: loss, learning rate, speed, memory in use."""
        parts = (f"loss {loss:.4f}", f"lr {lr:.2e}", f"{count_text(round(tokens_per_s))} tokens/s", memory_text(memory_bytes))
        self.to(step, "  ".join(parts))


def show_plan(plan: Mapping[str, Any]) -> None:
    """Show what is about to be done: one line per entry, nested entries indented under their name."""
    _line("Plan")
    _entries(plan, "  ")


def show_scores(
    before: Mapping[str, Metric] | None,
    after: Mapping[str, Metric],
    paired: Mapping[str, Difference],
    baselines: Mapping[str, Mapping[str, Metric]],
) -> None:
    """Show the scores as a table: untuned, tuned with the 95 % interval, the paired difference, each trivial baseline."""
    if not after:  # no rows were scored
        return
    table = Table(box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, collapse_padding=True)
    table.add_column("score")
    heads = (
        (["before"] if before else [])
        + ["after [95 %]" if before else "value [95 %]"]
        + (["change [95 %]", "p"] if paired else [])
        + list(baselines)
    )
    for head in heads:
        table.add_column(_text(head), justify="right")
    for name, metric in after.items():
        like = metric.value
        cells = [name]
        if before:
            cells.append(score_text(before[name].value, like) if name in before else "")
        cells.append(f"{score_text(like)} {interval_text(metric.low, metric.high, like)}".strip())
        if paired:
            cells += _change(paired[name], like) if name in paired else ["", ""]
        cells += [score_text(scores[name].value, like) if name in scores else "" for scores in baselines.values()]
        table.add_row(*map(_text, cells))
    _show(table)


def show_findings(findings: Sequence[Finding]) -> None:
    """Show what to look at, the worst first: in a log one line each, on a terminal wrapped beside its level."""
    for level, colour in COLOURS.items():
        for finding in findings:
            if finding.level != level:
                continue
            beside = Table.grid()
            beside.add_column(width=5)
            beside.add_column(overflow="fold")
            beside.add_row(Text(level, colour), _text(finding.whole()))
            line = _text(f"{level:<5}{finding.whole()}")
            _show(beside if _console().is_terminal else line, logged=line)


def show_next(commands: Sequence[str]) -> None:
    """Show commands to go on with, ready to copy."""
    _line("Next")
    for command in commands:
        _line(f"  {command}")


def _change(change: Difference, like: float | None) -> list[str]:
    interval = interval_text(change.low, change.high, like)
    return [f"{score_text(change.difference, like, sign=True)} {interval}", p_text(change.p)]


def _entries(entries: Mapping[str, Any], indent: str) -> None:
    width = max((len(entry_name(key)) for key in entries), default=0)
    for key, value in entries.items():
        if isinstance(value, Mapping):
            _line(f"{indent}{entry_name(key)}")
            _entries(value, indent + "  ")
        else:
            _line(f"{indent}{entry_name(key):<{width}}  {entry_text(key, value)}")


def say(text: str) -> None:
    """Say one line."""
    _line(text)


def _text(text: str) -> Text:
    """What comes from data, models or settings, without its secrets, and without power over the terminal."""
    return Text(shown_text(text))


def _line(text: str) -> None:
    _show(_text(text))


def _show(shown: Text | Table, logged: Text | None = None) -> None:
    _console().print(shown, soft_wrap=isinstance(shown, Text))
    if _log:
        _logging(_log).print(logged or shown, soft_wrap=isinstance(logged or shown, Text))


def _logging(file: TextIO) -> Console:
    return Console(file=file, highlight=False, color_system=None, width=LOG_WIDTH)


def _console() -> Console:
    # Made anew each time: stderr, NO_COLOR and the width may have changed since. A log is given room for whole tables.
    return Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else LOG_WIDTH)

"""What a command is doing, noted by itself, and a signal that the system sends it at a set time after a phase has begun.

LAB_PHASES=FILE: one line for every begin (+) and end (-) of a phase, with the time, and one (.) for every micro-batch and token.
LAB_ALARM=PHASE:N:SECONDS:NUMBER: so many seconds after the Nth begin of the phase a timer of the system sends the signal
NUMBER. It comes wherever the process is then, in C code too; in the file it is the line that begins with !.
"""

import ctypes
import functools
import importlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PHASES = {
    "read": ["llmft.train.open_splits", "llmft.evaluate.open_splits", "llmft.train.fingerprints"],
    "claim": ["llmft.train.claim", "llmft.evaluate.claim"],
    "make model": ["llmft.tasks.open.make_scratch", "llmft.models.locate.convert_gguf"],
    "load": ["llmft.train.open_training", "llmft.evaluate.open_task", "llmft.predict.open_task"],
    "tokenise": ["llmft.train.prepare_corpus"],
    "trial": ["llmft.train.make_plan"],
    "training": ["llmft.fit.take_step"],
    "validation": ["llmft.fit.validate"],
    "saving": ["llmft.fit.save"],
    "export": ["llmft.train.export"],
    "generation": ["llmft.tasks.scoring.predict_examples", "llmft.predict.predict_examples"],
    "report": ["llmft.train.conclude", "llmft.evaluate.conclude"],
    "next job": ["llmft.sweep.rows.write_job"],
    "table": ["llmft.sweep.table.show"],
}
"""What is done where. `compose` is what comes before the work itself."""
PIECES = [
    "llmft.models.decoding.search.Search.append",
    "llmft.models.decoding.beam.BeamSearch.extend",
    "llmft.models.decoding.plain.SignalCheck.__call__",
    "torch.Tensor.backward",
]
"""Between two of these a command looks for signals."""


@dataclass(frozen=True)
class Span:
    """A phase, from `begin` to `end` in seconds on the system's clock; `end` is infinite where the process ended first."""

    phase: str
    begin: float
    end: float
    number: int
    """Which one of its name it was, from 1."""


@dataclass(frozen=True)
class Told:
    """What a command noted of itself."""

    spans: list[Span]
    pieces: list[float]
    """When each micro-batch or token began."""
    alarm: float | None
    """When the signal came."""

    def at(self, moment: float) -> str:
        """The innermost phase at that time."""
        open_then = [span for span in self.spans if span.begin <= moment < span.end]
        return max(open_then, key=lambda span: span.begin).phase if open_then else "elsewhere"


def read(path: Path) -> Told:
    """Read what a command noted."""
    spans, pieces, alarm, counts = [], [], None, {}
    begun: list[tuple[str, float]] = []
    for line in path.read_text().splitlines():
        kind, time_text, phase = line.split(" ", 2)
        moment = float(time_text)
        if kind == "+":
            begun.append((phase, moment))
        elif kind == "-":
            begin = next(each for each in reversed(begun) if each[0] == phase)
            begun.remove(begin)
            counts[phase] = counts.get(phase, 0) + 1
            spans.append(Span(phase, begin[1], moment, counts[phase]))
        elif kind == "!":
            alarm = moment
        else:
            pieces.append(moment)
    spans += [Span(phase, begin, float("inf"), counts.get(phase, 0) + 1) for phase, begin in begun]
    return Told(spans, pieces, alarm)


def install() -> None:
    """Do what the environment asks for, in the process of a command, before it begins."""
    path = os.environ.get("LAB_PHASES")
    if path is None:
        return
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    alarm = os.environ.get("LAB_ALARM")
    wanted, place, delay, number = alarm.rsplit(":", 3) if alarm else ("", "0", "0", "0")
    counts: dict[str, int] = {}

    def note(kind: str, phase: str) -> None:
        os.write(out, f"{kind} {time.monotonic():.6f} {phase}\n".encode())

    def begin(phase: str) -> None:
        note("+", phase)
        counts[phase] = counts.get(phase, 0) + 1
        if phase == wanted and counts[phase] == int(place):
            send_later(float(delay), int(number), lambda moment: os.write(out, f"! {moment:.6f} {number}\n".encode()))

    def noted(function: Callable[..., Any], phase: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **options: Any) -> Any:
            begin(phase)
            try:
                return function(*args, **options)
            finally:
                note("-", phase)

        return wrapped

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **options: Any) -> Any:
            note(".", "piece")
            return function(*args, **options)

        return wrapped

    for phase, names in PHASES.items():
        for name in names:
            _replace(name, lambda function, phase=phase: noted(function, phase))
    for name in PIECES:
        _replace(name, counted)

    def around_compose(function: Callable[..., Any], kind: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **options: Any) -> Any:
            if kind == "+":
                begin("compose")
            elif counts["compose"] == 1:
                counts["compose"] += 1
                note("-", "compose")
            return function(*args, **options)

        return wrapped

    _replace("llmft.cli.main._answer", lambda function: around_compose(function, "+"))
    _replace("llmft.cli.job._work", lambda function: around_compose(function, "-"))


def send_later(seconds: float, number: int, tell: Callable[[float], object]) -> None:
    """Let the system send this process a signal after a while, by a timer of POSIX: no thread and no poll is in the way.

    `tell` is given the moment, on the monotonic clock, before the timer is set to it: setting one up takes as long as a micro-batch.
    """

    class Event(ctypes.Structure):
        _fields_ = [("value", ctypes.c_void_p), ("number", ctypes.c_int), ("how", ctypes.c_int), ("rest", ctypes.c_byte * 48)]

    libc = ctypes.CDLL(None, use_errno=True)
    event, timer = Event(None, number, 0, (ctypes.c_byte * 48)()), ctypes.c_void_p()
    clock_monotonic, absolute = 1, 1
    assert libc.timer_create(clock_monotonic, ctypes.byref(event), ctypes.byref(timer)) == 0, ctypes.get_errno()
    moment = time.monotonic() + seconds
    when = (ctypes.c_long * 4)(0, 0, *divmod(int(moment * 1e9), 1_000_000_000))
    tell(moment)
    assert libc.timer_settime(timer, absolute, ctypes.byref(when), None) == 0, ctypes.get_errno()


def _replace(name: str, change: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put the changed function in the place of the one of that dotted name."""
    holder, _, attribute = name.rpartition(".")
    with suppress(ModuleNotFoundError):
        setattr(importlib.import_module(holder), attribute, change(getattr(importlib.import_module(holder), attribute)))
        return
    module, _, kind = holder.rpartition(".")
    owner = getattr(importlib.import_module(module), kind)
    setattr(owner, attribute, change(getattr(owner, attribute)))

"""The real command line in this process with the work taken out: it composes and checks, and notes what it would do."""

import contextlib
import io
import os
import re
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from llmft.cli.main import main
from llmft.config.bind import bind_all
from llmft.config.schema import TrainRun
from llmft.config.shown import CONTROLS
from llmft.runs import signals
from llmft.tasks.bound import bind_task
from llmft.training.bound import bind_optimizer, bind_schedule

BASE = ["model.name=m", "task.data.train=a.jsonl"]
"""What a training cannot do without."""
LIMIT_S = 5.0
"""Processor time that no command line may take to be understood."""


@dataclass
class Said:
    """How a command line ended; `runs`: what the work was called with."""

    code: int
    out: str
    err: str
    seconds: float
    runs: list[Any] = field(default_factory=list)

    def refused(self) -> str:
        """The message of a command line that was refused as it should be, at once and in sentences."""
        assert self.code == 2, self
        assert self.runs == []
        self.check()
        return self.err

    def check(self) -> None:
        """Accepted, or refused in sentences: nothing else."""
        assert self.code in (0, 2), self
        assert "Traceback" not in self.err, self.err
        assert not CONTROLS.search(self.err), self.err
        assert self.seconds < LIMIT_S, self
        if self.code == 2:
            assert re.match(r"error: .{8,}", self.err), self.err


def command(words: Sequence[str], folder: Path, work: Callable[[Any], object] = lambda run: None) -> Said:
    """Run `llmft WORDS` in `folder` up to the work, and `work` with its settings in place of that."""
    runs: list[Any] = []
    out, err = io.StringIO(), io.StringIO()
    before, began = Path.cwd(), time.process_time()
    os.chdir(folder)
    try:
        with _without_work(runs, work), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(list(words))
    finally:
        os.chdir(before)
    return Said(code, out.getvalue(), err.getvalue(), time.process_time() - began, runs)


def bind_run(run: Any) -> None:
    """What every command does first: turn names into functions."""
    attempts = [lambda: bind_task(run.task, run.plugins)]
    if isinstance(run, TrainRun):
        attempts += [lambda: bind_optimizer(run.optimizer, run.plugins), lambda: bind_schedule(run.schedule, run.plugins)]
    bind_all(*attempts)


def write(path: Path, text: str) -> Path:
    """Write a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@contextlib.contextmanager
def _without_work(runs: list[Any], work: Callable[[Any], object]) -> Iterator[None]:
    names = {"llmft.train": "train", "llmft.evaluate": "evaluate", "llmft.predict": "predict"}
    before = {module: sys.modules.get(module) for module in names}

    def noted(run: Any, _: list[str]) -> None:
        work(run)
        runs.append(run)

    for module, function in names.items():
        sys.modules[module] = types.ModuleType(module)
        setattr(sys.modules[module], function, noted)
    try:
        with mock.patch.object(signals, "install"):  # the test run keeps its own handlers
            yield
    finally:
        for module, real in before.items():
            del sys.modules[module]
            if real:
                sys.modules[module] = real

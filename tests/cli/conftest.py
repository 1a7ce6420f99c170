"""The command line in this process, in a folder of its own, with the work replaced by a note of what it was asked for."""

import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llmft.cli.main import main
from llmft.runs import signals


@dataclass
class Cli:
    """Runs command lines; `runs` is what the work was called with."""

    capsys: pytest.CaptureFixture[str]
    runs: list[Any] = field(default_factory=list)
    commands: list[list[str]] = field(default_factory=list)
    result: Any = 1.0
    out: str = ""
    err: str = ""

    def __call__(self, *words: str) -> int:
        self.runs.clear()
        code = main(list(words))
        self.out, self.err = self.capsys.readouterr()
        return code

    def work(self, run, command):
        self.runs.append(run)
        self.commands.append(command)
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


@pytest.fixture
def llmft(monkeypatch, tmp_path, capsys):
    cli = Cli(capsys)
    for module, function in (("train", "train"), ("evaluate", "evaluate"), ("predict", "predict")):
        fake = types.ModuleType(f"llmft.{module}")
        setattr(fake, function, cli.work)
        monkeypatch.setitem(sys.modules, f"llmft.{module}", fake)
    monkeypatch.setattr(signals, "install", lambda: None)  # the test run keeps its own handlers
    monkeypatch.chdir(tmp_path)
    return cli


@pytest.fixture
def write() -> Callable[[Path, str], Path]:
    """Write a file, and the folders above it; the path it then has."""

    def make(path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path.resolve()

    return make

"""The laboratory: llmft commands in processes of their own, to be stopped, killed and starved.

Python's fork server imports torch and llmft once and forks a process for each command, so that a command costs its work
alone. Everything that runs here is the real command line on the real training code, with a tiny transformer.
"""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import crash_hooks
import crash_phases
import crash_races

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        *("crash_lab", "crash_hooks", "crash_phases", "peft"),
        *("llmft.cli.job", "llmft.train", "llmft.evaluate", "llmft.predict", "llmft.sweep.jobs", "llmft.sweep.search"),
    ]
)

HERE = Path(__file__).parent
TIMEOUT_S = 300
POLL_S = 0.001


@dataclass
class Command:
    """A command under way, or ended."""

    process: ForkServerProcess | subprocess.Popen[bytes]
    log: Path
    """Everything it wrote to stdout and stderr."""

    @property
    def pid(self) -> int:
        """Process id."""
        assert self.process.pid
        return self.process.pid

    @property
    def code(self) -> int | None:
        """Its exit code, minus the signal's number if a signal ended it; None while it runs."""
        return self.process.poll() if isinstance(self.process, subprocess.Popen) else self.process.exitcode

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; one that ended already is left alone."""
        if self.code is None:
            os.kill(self.pid, number)

    def wait(self, timeout: float = TIMEOUT_S) -> int:
        """Return the exit code, minus the signal's number if a signal ended it. Raises TimeoutError after killing it."""
        if isinstance(self.process, subprocess.Popen):
            self.wait_until(lambda: False, timeout)
        else:
            self.process.join(timeout)
        code = self.code
        if code is None:
            self.process.kill()
            raise TimeoutError(f"still running after {timeout} s:\n{self.said()}")
        return code

    def wait_until(self, condition: Callable[[], bool], timeout: float = TIMEOUT_S) -> bool:
        """Wait until `condition` holds or the command ends, for at most `timeout`; tell whether it holds."""
        until = time.monotonic() + timeout
        while not condition():
            if self.code is not None or time.monotonic() > until:
                return condition()
            time.sleep(POLL_S)
        return True

    def wait_for(self, path: Path, timeout: float = TIMEOUT_S) -> None:
        """Wait until `path` is there. Raises TimeoutError, or RuntimeError if the command ends before."""
        if not self.wait_until(path.exists, timeout):
            if self.code is None:
                raise TimeoutError(f"no {path} after {timeout} s:\n{self.said()}")
            raise RuntimeError(f"ended with {self.code} before {path} was there:\n{self.said()}")

    def hears(self) -> bool:
        """Whether it has taken over the signals; before, one ends it as it would end any process."""
        try:
            mask = Path(f"/proc/{self.pid}/status").read_text().partition("SigCgt:")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError, IndexError):
            return False
        return bool(int(mask, 16) >> (signal.SIGHUP - 1) & 1)

    def said(self) -> str:
        """What it has written so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def start(words: Sequence[str], folder: Path, env: Mapping[str, str] | None = None, log: Path | None = None) -> Command:
    """Start `llmft WORDS` in `folder`, with `env` on top of the environment; its output goes to `log`."""
    log = log or folder / "command.log"
    process = CONTEXT.Process(target=_command, args=(list(words), str(folder), dict(env or {}), str(log)))
    process.start()
    return Command(process, log)


def start_real(words: Sequence[str], folder: Path, env: Mapping[str, str] | None = None, log: Path | None = None) -> Command:
    """As `start`, but a new Python with the real command line, as a user types it: seconds go into imports."""
    log = log or folder / "command.log"
    path = os.pathsep.join([str(HERE / "site"), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "llmft", *words],
            cwd=folder,
            env={**os.environ, **(env or {}), "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    return Command(process, log)


def run(words: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run `llmft WORDS` to its end; return its exit code and what it wrote."""
    command = start(words, folder, env)
    return command.wait(), command.said()


def _command(words: list[str], folder: str, env: dict[str, str], log: str) -> None:
    """In the forked process: become the command."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.chdir(folder)
    os.environ.update(env)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    from llmft.cli.main import main

    crash_hooks.install()
    crash_phases.install()
    crash_races.install()
    code = main(words)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines, a torn last one left out."""
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]

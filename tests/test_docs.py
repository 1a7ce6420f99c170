"""Every command of README.md and docs/ is run, page by page and in order, in a folder of its own.

Fences marked bash or console hold commands; a comment above one may say what is special about it:

    <!-- not run by tests: reason -->        listed in NOT_RUN, word for word
    <!-- exits 3 -->                         the exit code of its one command
    <!-- Ctrl-C while it runs, exits 130 --> the signal comes in the sixth step

README's commands are meant for a real model; here each `llmft train` gets TINY behind it. The other pages run as they are.
"""

import io
import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from llmft import fit
from llmft.cli.help import EXITS
from llmft.cli.main import main
from llmft.data.builtin import summaries
from llmft.errors import Stopped
from llmft.reports.console import Progress
from llmft.runs import signals

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": 17, "docs/quickstart.md": 18, "docs/run-directory.md": 0}
"""Page -> how many commands it has at least: a page that loses its commands must not pass."""
NOT_RUN = {
    "recurses into make": {"make demo", "make test", "make setup", ". .venv/bin/activate"},
    "needs the network": {"llmft train task=tickets", "llmft train task=tickets model=qwen3_0_6b"},
}
TINY = ["model.name=tiny/llama", "training.max_steps=2", "generation.max_new_tokens=4", "task.max_source_tokens=64"]
ROWS = ["task.data.max_train=8", "task.data.max_validation=2", "task.data.max_test=2"]
FENCE = re.compile(r"^((?:<!--[^\n]*-->\n)?)```(bash|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class Fence:
    """The commands of one fence, and what the comment above it says about them."""

    page: str
    line: int
    commands: list[str] = field(default_factory=list)
    not_run: str | None = None
    exits: int = 0
    interrupted: bool = False


def fences(page: str) -> list[Fence]:
    """Read the fences of a page."""
    text, found = (ROOT / page).read_text(encoding="utf-8"), []
    for match in FENCE.finditer(text):
        comment, kind, body = match.groups()
        fence = Fence(page, text.count("\n", 0, match.start()) + 1)
        if reason := re.fullmatch(r"<!-- not run by tests: (.+) -->\n", comment):
            fence.not_run = reason[1]
        elif code := re.fullmatch(r"<!-- (Ctrl-C while it runs, )?exits (\d+) -->\n", comment):
            fence.interrupted, fence.exits = bool(code[1]), int(code[2])
        else:
            assert not comment, f"{page}:{fence.line}: unknown comment {comment}"
        if kind == "console":  # what a command prints is not a command
            body = "".join(line[2:] + "\n" for line in body.splitlines() if line.startswith("$ "))
        fence.commands = commands(body)
        assert fence.commands, f"{page}:{fence.line}: no command"
        assert len(fence.commands) == 1 or not fence.exits, f"{page}:{fence.line}: an exit code is for one command"
        found.append(fence)
    return found


def commands(body: str) -> list[str]:
    """Cut a script into commands: one a line, with its continuation lines or its here-document."""
    found: list[str] = []
    lines = iter(body.splitlines())
    for line in lines:
        while line.endswith("\\"):
            line = line[:-1].rstrip() + " " + next(lines).lstrip()
        if end := re.search(r"<<'(\w+)'", line):
            for more in lines:
                line += "\n" + more
                if more == end[1]:
                    break
            line += "\n"
        if line.strip() and not line.startswith("#"):
            found.append(line)
    return found


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """Run what is not llmft."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(["bash", "-ec", command], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True)


def interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ctrl-C come in the sixth step."""

    def stopped_step(work: fit.Work, progress: Progress) -> None:
        if work.position.step == 5:
            raise Stopped(signal.SIGINT)
        take_step(work, progress)

    take_step = fit.take_step
    monkeypatch.setattr(fit, "take_step", stopped_step)


def run(command: str, fence: Fence, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run one command as a reader would, llmft in this process: loading torch for each would take minutes."""
    left, _, last = command.rpartition("| ") if "| llmft " in command else ("", "", command)
    if not last.startswith("llmft "):
        done = shell(command, folder)
        sys.stderr.write(done.stderr.decode())
        return done.returncode
    words = shlex.split(last)[1:]
    if fence.page == "README.md" and words[0] == "train" and "--help" not in words:
        words += [*TINY, *ROWS]
    if fence.page == "README.md" and words[0] == "eval" and not any(word.startswith("run=") for word in words):
        words += ["model.name=tiny/llama", "generation.max_new_tokens=4", "task.max_source_tokens=64", "task.data.max_test=2"]
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(signals, "install", lambda: None)  # the test run keeps its own handlers
        if fence.interrupted:
            interrupt(patch)
        if left:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(shell(left.rstrip(), folder).stdout)))
        return main(words)


def news(number: int) -> str:
    """A row of the file that README speaks of as the reader's own."""
    return f'{{"article": "Text {number} begins. It goes on.", "highlights": "Text {number}."}}\n'


def test_exit_codes_are_those_of_the_help():
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(rows) == EXITS


def test_every_page_is_read():
    pages = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
    assert sorted(pages) == sorted(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_no_command_escapes(page):
    found = fences(page)
    text = (ROOT / page).read_text(encoding="utf-8")
    assert sum(len(fence.commands) for fence in found if not fence.not_run) >= PAGES[page]
    assert len(found) == len(re.findall(r"^```(?:bash|console|sh|shell)", text, re.MULTILINE))
    for fence in found:
        if fence.not_run:
            assert set(fence.commands) <= NOT_RUN[fence.not_run], f"{page}:{fence.line}"


@pytest.mark.parametrize("page", [page for page, least in PAGES.items() if least])
def test_commands(page, tiny, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(summaries, "standard_library", cache(summaries.standard_library))  # seconds, for every command
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    if page == "README.md":
        (tmp_path / "tiny").symlink_to(tiny)
        (tmp_path / "news.jsonl").write_text("".join(map(news, range(40))), encoding="utf-8")
    interrupted = None
    for fence in fences(page):
        for command in fence.commands if not fence.not_run else ():
            code = run(command, fence, tmp_path, monkeypatch)
            _out, err = capfd.readouterr()
            assert code == fence.exits, f"{page}:{fence.line}: {command}\nexit {code}, expected {fence.exits}\n{err}"
            if fence.interrupted:
                interrupted = command
            elif command == interrupted:
                assert re.match(r"resuming .+ from step 5", err), err


def test_a_broken_command_is_seen(tiny, tmp_path, monkeypatch):
    fence = Fence("README.md", 1)
    assert run("llmft train task=sumarization", fence, tmp_path, monkeypatch) == 2
    assert run("llmft predict run=latest input=texts.txt", fence, tmp_path, monkeypatch) == 2
    assert run("cat not-there.txt", fence, tmp_path, monkeypatch) == 1

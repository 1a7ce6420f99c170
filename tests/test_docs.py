"""Every command of README.md and docs/ is run, page by page and in order, in a folder of its own.

Fences marked bash or console hold commands; a comment above one may say what is special about it:

    <!-- not run by tests: reason -->        listed in NOT_RUN, word for word
    <!-- not run by tests: needs data/ -->   its settings are composed, and no more
    <!-- exits 3 -->                         the exit code of its one command
    <!-- Ctrl-C while it runs, exits 130 --> the signal comes in the sixth step

Commands of README and tasks are meant for real models; here each `llmft train` gets TINY behind it, and in place of its preset
a tiny model of the same architecture. The other pages run as they are.
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
from llmft.config import names
from llmft.config.bind import bind
from llmft.errors import Stopped
from llmft.reports.console import Progress
from llmft.runs import signals

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": 20,
    "docs/performance.md": 0,
    "docs/quickstart.md": 18,
    "docs/reliability.md": 0,
    "docs/results.md": 0,
    "docs/run-directory.md": 0,
    "docs/scores.md": 7,
    "docs/tasks.md": 40,
}
"""Page -> how many commands it has at least: a page that loses its commands must not pass."""
REAL_MODELS = {"README.md", "docs/tasks.md"}
"""Pages whose commands name models that would have to be downloaded."""
NEEDS_DATA = "needs data/"
NOT_RUN = {
    "recurses into make": {"make demo", "make smoke", "make test", "make setup", ". .venv/bin/activate"},
    "needs the network": {"llmft train task=tickets", "llmft train task=tickets model=qwen3_0_6b"},
}
TINY = ["training.max_steps=2", "generation.max_new_tokens=4", "task.max_source_tokens=64", "task.overlap=16"]
TINY_MODELS = {
    "smollm2_135m": "llama",
    "qwen3_0_6b": "qwen3",
    "gpt2": "gpt2",
    "t5_small": "t5",
    "bart_base": "bart",
    "opus_mt_en_de": "marian",
    "mbart50": "mbart",
    "bert_base": "bert",
}
"""Preset -> the tiny model that stands for it."""
SCRATCH = {"transformer_small"}
"""Presets that are small enough as they are."""
ROWS = ["task.data.max_train=64", "task.data.max_validation=2", "task.data.max_test=2"]
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


def tiny_model(words: list[str]) -> list[str]:
    """Return the setting that puts a tiny model in the place of the one that a command names."""
    preset = next((word.removeprefix("model=") for word in words if word.startswith("model=")), "smollm2_135m")
    return [] if preset in SCRATCH else [f"model.name=tiny/{TINY_MODELS[preset]}"]


def run(command: str, fence: Fence, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run one command as a reader would, llmft in this process: loading torch for each would take minutes."""
    left, _, last = command.rpartition("| ") if "| llmft " in command else ("", "", command)
    from_here = last.startswith("PYTHONPATH=. ")
    last = last.removeprefix("PYTHONPATH=. ")
    if not last.startswith("llmft "):
        done = shell(command, folder)
        sys.stderr.write(done.stderr.decode())
        return done.returncode
    words = shlex.split(last)[1:]
    if fence.page in REAL_MODELS and words[0] == "train" and "--help" not in words:
        words += [*tiny_model(words), *TINY, *ROWS]
    if (
        fence.page in REAL_MODELS
        and words[0] == "eval"
        and not any(word.startswith(("run=", "predictions=")) for word in words)
    ):
        words += [*tiny_model(words), "generation.max_new_tokens=4", "task.max_source_tokens=64", "task.data.max_test=2"]
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        if from_here:
            patch.syspath_prepend(folder)
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
        if fence.not_run and fence.not_run != NEEDS_DATA:
            assert set(fence.commands) <= NOT_RUN[fence.not_run], f"{page}:{fence.line}"


@pytest.mark.parametrize("page", [page for page, least in PAGES.items() if least])
def test_commands(page, tiny, tmp_path, monkeypatch, capfd):
    for name, path in names.DATASETS.items():  # seconds each, for every command
        monkeypatch.setattr(path, cache(bind(name, names.DATASETS, [], page)))
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    if page in REAL_MODELS:
        (tmp_path / "tiny").symlink_to(tiny)
    if page == "README.md":
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


def test_commands_that_need_data_compose(tmp_path, monkeypatch):
    found = [fence for fence in fences("docs/results.md") if fence.not_run == NEEDS_DATA]
    composed = [f"{command} --cfg job" for fence in found for command in fence.commands if command.startswith("llmft ")]
    assert len(composed) >= 7
    for command in composed:
        assert run(command, found[0], tmp_path, monkeypatch) == 0, command


def test_a_broken_command_is_seen(tiny, tmp_path, monkeypatch):
    fence = Fence("README.md", 1)
    assert run("llmft train task=sumarization", fence, tmp_path, monkeypatch) == 2
    assert run("llmft predict run=latest input=texts.txt", fence, tmp_path, monkeypatch) == 2
    assert run("cat not-there.txt", fence, tmp_path, monkeypatch) == 1

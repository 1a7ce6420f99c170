"""Signals at random moments of every phase: saved, recorded, exit 75 or 130, and the same command ends in the same bytes.

A chain is one command, stopped again and again: its phases in their order, the moments within them drawn from a seed, the
five kinds of signal in turn. The system's timer sends them, so they come in the middle of C code as well.
"""

import json
import random
import re
import shutil
import signal
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import crash_lab
import crash_phases
import crash_runs
import pytest
from crash_lab import Command
from crash_phases import Told

from llmft.runs import lock, manifest, status
from llmft.runs.signals import SIGNALS

ALLOWANCE_S = 3.0
"""On top of the longest micro-batch and the longest save: starting to end a process, on a machine that does other work besides."""
LEFTOVER = re.compile(r"\..+\.(tmp|old)-.*")
VALIDATED = ("validated", "validation_loss", "validation_loss_before", "best", "best_step", "worse", "ended", "seconds")
"""Entries of a checkpoint's position that tell of its validation; and its seconds, which are the clock's."""
BEFORE_STEPS = ("compose", "claim", "make model", "load", "tokenise", "trial", "generation")
STEPS = ("validation", "training", "training", "saving", "training", "validation", "training", "saving")
AFTER_STEPS = ("export", "generation", "report")


@dataclass(frozen=True)
class Case:
    """A command, and the phases in which it is stopped, in their order."""

    task: str
    model: str
    settings: tuple[str, ...]
    phases: tuple[str, ...]
    command: str = "train"


CASES = {
    "llama_accumulated": Case(
        "summarization",
        "llama",
        ("adapter.r=4", "adapter.dropout=0.1", "training.micro_tokens=64", "training.baseline=true"),
        (*(phase for phase in BEFORE_STEPS if phase != "make model"), *STEPS, *AFTER_STEPS),
    ),
    "t5_saved_beside": Case(
        "summarization",
        "t5",
        ("adapter=none", "training.micro_tokens=40", "training.async_save=true", "training.metric=rougeL"),
        ("compose", "load", "tokenise", "trial", *STEPS, *AFTER_STEPS),
    ),
    "bert_classes": Case(
        "classification",
        "bert",
        ("adapter=none",),
        ("compose", "claim", "load", "tokenise", "trial", *STEPS, "export", "report"),
    ),
    "from_scratch": Case(
        "translation",
        "scratch",
        (
            "adapter=none",
            *(f"model.scratch.{size}" for size in ("d_model=16", "layers=1", "heads=2", "ffn=16", "vocab_size=300")),
        ),
        ("compose", "make model", "make model", "tokenise", "trial", *STEPS, *AFTER_STEPS),
    ),
    "eval": Case("summarization", "llama", (), ("compose", "claim", "load", "generation", "generation", "report"), "eval"),
    "predict": Case("summarization", "llama", (), ("compose", "load", "generation"), "predict"),
}
QUICK = {"bert_classes": [0], "predict": [0]}
FULL = {name: [1] if CASES[name].command != "train" else [1, 2] for name in CASES}


@dataclass
class Chain:
    """A command under attack in a folder of its own."""

    words: list[str]
    folder: Path
    undisturbed: Told
    processes: int = 0
    hits: Counter[str] = field(default_factory=Counter)
    """Signals by the phase in which they came."""
    latencies: list[float] = field(default_factory=list)
    """Seconds from signal to exit."""

    def start(self, alarm: str = "") -> tuple[Command, Path]:
        """Type the command once more."""
        self.processes += 1
        noted = self.folder / f"{self.processes}.phases"
        return start(self.words, self.folder, noted, alarm, f"{self.processes}.log"), noted

    def stop(self, phase: str, draw: random.Random, number: signal.Signals) -> bool:
        """Send the signal in the phase and look at what it left; False if the command was done before it came."""
        spans = [span for span in self.undisturbed.spans if span.phase == phase]
        assert spans, f"the undisturbed command has no phase {phase}"
        place = draw.randint(1, 3) if phase == "training" else 1
        delay = draw.uniform(0, 0.9) * (spans[place - 1].end - spans[place - 1].begin)
        command, noted = self.start(f"{phase}:{place}:{delay:.6f}:{number}")
        code, ended = command.wait(), time.monotonic()
        told = crash_phases.read(noted)
        assert told.alarm is not None, f"{phase} was not reached\n{command.said()}"
        if code == 0:  # the report was done, and the end written down
            assert self.status().state == "done"
            return False
        assert code == (130 if number == signal.SIGINT else 75), f"{code} after {number.name} in {phase}\n{command.said()}"
        self.hits[told.at(told.alarm)] += 1
        self.latencies.append(ended - told.alarm)
        self.check_pace(told, command)
        self.check_state(command, code, number)
        check_files(self.folder)
        return True

    def check_pace(self, told: Told, command: Command) -> None:
        """Assert that no second micro-batch or token was begun after the signal, and that the process ended soon."""
        assert told.alarm is not None
        begun = [moment for moment in told.pieces if moment > told.alarm]
        assert len(begun) <= 1, f"{len(begun)} micro-batches or tokens after the signal\n{command.said()}"
        known = self.undisturbed
        longest = max((after - before for before, after in zip(known.pieces, known.pieces[1:], strict=False)), default=0.0)
        save = max((span.end - span.begin for span in known.spans if span.phase == "saving"), default=0.0)
        compose = max(span.end - span.begin for span in known.spans if span.phase == "compose")  # put off to its end
        assert self.latencies[-1] <= longest + save + compose + ALLOWANCE_S, command.said()

    def status(self) -> status.Status:
        """What status.json says; of predict, which has none, what it would."""
        run = self.folder / "run"
        if (found := status.read(run) if run.is_dir() else None) is not None:
            return found
        done = (self.folder / "run.jsonl").exists()
        return status.Status("done" if done else "stopped", 0, "", "", "", [])

    def check_state(self, command: Command, code: int, number: signal.Signals) -> None:
        """Assert that status.json tells what happened, and that nobody holds the lock."""
        run, found = self.folder / "run", self.status()
        assert found.state == "stopped", command.said()
        if found.pid == command.pid:  # it got as far as to claim the folder
            assert (found.exit, found.error) == (code, number.name)
            assert found.end is not None
            assert found.start <= found.end
            steps = crash_runs.saved_steps(run)
            assert found.step == (steps[-1] if steps else 0)
        if run.is_dir():
            assert lock.holder(run) is None
        assert f"stopped by {number.name}" in command.said()


def start(words: list[str], folder: Path, noted: Path, alarm: str = "", log: str = "0.log") -> Command:
    """Start a command that notes its phases, with a cache and temporary files of its own."""
    (folder / "tmp").mkdir(exist_ok=True)
    env = {"LLMFT_CACHE": str(folder / "cache"), "TMPDIR": str(folder / "tmp"), "LAB_PHASES": str(noted)}
    return crash_lab.start(words, folder, env | ({"LAB_ALARM": alarm} if alarm else {}), folder / log)


def check_files(folder: Path) -> None:
    """Assert that nothing is half written: folders keep their manifests, JSON parses, nothing temporary is left."""
    assert not list((folder / "tmp").iterdir())
    for path in folder.rglob("*"):
        assert not LEFTOVER.fullmatch(path.name), f"left behind: {path}"
        if path.name == manifest.MANIFEST:
            assert not manifest.verify(path.parent)
        if path.suffix == ".json":
            json.loads(path.read_bytes())
        if path.suffix in (".jsonl", ".partial") and path.is_file():
            text = path.read_text()
            assert text == "" or text.endswith("\n"), path
            assert len(crash_lab.rows(path)) == text.count("\n")


@pytest.fixture(scope="module")
def undisturbed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """Run a case to its end, once: (name) -> words, the folder in which `run` lies, and what the command noted."""
    data = tmp_path_factory.mktemp("data")
    crash_runs.write_rows(data)

    @cache
    def run(name: str) -> tuple[list[str], Path, Told]:
        case, folder = CASES[name], tmp_path_factory.mktemp(name)
        if case.command == "train":
            task = "summarization" if case.model == "scratch" else case.task
            words = crash_runs.training(task, tiny / case.model, data, *case.settings, "training.keep=100", "output_dir=run")
            if case.model == "scratch":
                words = ["model=transformer_small" if word.startswith("model.name=") else word for word in words]
        else:
            _, trained, _ = run("llama_accumulated")
            words = [case.command, f"run={trained / 'run'}", "generation.batch_size=2"]
            words += ["output=run"] if case.command == "eval" else [f"input={data / 'test.jsonl'}", "output=run.jsonl"]
        command = start(words, folder, folder / "0.phases")
        assert command.wait() == 0, command.said()
        check_files(folder)
        return words, folder, crash_phases.read(folder / "0.phases")

    return run


def stopped_again_and_again(name: str, seed: int, undisturbed, folder: Path) -> None:
    words, expected, told = undisturbed(name)
    chain, draw = Chain(words, folder, told), random.Random(f"{name} {seed}")
    kinds = [SIGNALS[(seed + place) % len(SIGNALS)] for place in range(len(CASES[name].phases))]
    for phase, number in zip(CASES[name].phases, kinds, strict=True):
        if not chain.stop(phase, draw, number):
            break
    else:
        command, _ = chain.start()
        assert command.wait() == 0, command.said()
    assert sum(chain.hits.values()) >= len(CASES[name].phases) - 1
    check_files(folder)
    compare(CASES[name].command, expected, folder)
    print(f"{name} {seed}: {sum(chain.hits.values())} signals, {dict(chain.hits)};")  # shown with -s
    print(f"seconds to the exit: median {statistics.median(chain.latencies):.2f}, longest {max(chain.latencies):.2f}")


def compare(command: str, expected: Path, found: Path) -> None:
    """Assert that both folders hold the same outcome, byte for byte."""
    if command == "predict":
        assert (found / "run.jsonl").read_bytes() == (expected / "run.jsonl").read_bytes()
        assert not list(found.glob(".run.jsonl*"))
    elif command == "eval":
        for path in (expected / "run" / "predictions").iterdir():
            assert (found / "run" / "predictions" / path.name).read_bytes() == path.read_bytes()
        results = [json.loads((folder / "run" / "results.json").read_text()) for folder in (expected, found)]
        for name in ("n", "metrics", "baselines", "fingerprints"):
            assert results[0][name] == results[1][name]
    else:
        due = crash_runs.saved_steps(expected / "run")
        for step in crash_runs.saved_steps(found / "run"):
            if step not in due:  # saved because of a signal
                shutil.rmtree(found / "run" / "checkpoints" / f"step-{step:06d}")
            else:
                make_validated(expected / "run", found / "run", f"checkpoints/step-{step:06d}/state.json")
        crash_runs.assert_same_ending(expected / "run", found / "run")


def make_validated(expected: Path, found: Path, name: str) -> None:
    """A checkpoint that a signal in the middle of its validation left does not know of it; assert that nothing else differs."""
    states = [json.loads((run / name).read_text()) for run in (expected, found)]
    if states[1]["position"]["validated"] != states[1]["position"]["step"]:
        shutil.copy(expected / name, found / name)
        for state in states:
            for known in VALIDATED:
                del state["position"][known]
        assert states[0] == states[1]


@pytest.mark.parametrize(("name", "seed"), [(name, seed) for name, seeds in QUICK.items() for seed in seeds])
def test_stopped_in_every_phase(name: str, seed: int, undisturbed, tmp_path: Path) -> None:
    stopped_again_and_again(name, seed, undisturbed, tmp_path)


@pytest.mark.torture
@pytest.mark.parametrize(("name", "seed"), [(name, seed) for name, seeds in FULL.items() for seed in seeds])
def test_stopped_in_every_phase_at_full_size(name: str, seed: int, undisturbed, tmp_path: Path) -> None:
    stopped_again_and_again(name, seed, undisturbed, tmp_path)


def while_it_imports(kind: signal.Signals, share: float, words: list[str], folder: Path, seconds: float) -> float:
    """Send a signal to a real command line that still loads what it needs; return the seconds from start to handlers."""
    command = crash_lab.start_real([*words, "output_dir=run"], folder, {"LLMFT_CACHE": str(folder / "cache")})
    began = time.monotonic()
    assert command.wait_until(command.hears), command.said()
    deaf = time.monotonic() - began
    time.sleep(share * seconds)
    command.kill(kind)
    assert command.wait() == (130 if kind == signal.SIGINT else 75), command.said()
    assert f"stopped by {kind.name}" in command.said()
    assert "Traceback" not in command.said()
    if (folder / "run").exists():
        found = status.read(folder / "run")
        assert found is None or (found.state, found.error) == ("stopped", kind.name)
    return deaf


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT], ids=lambda kind: kind.name)
def test_stopped_while_it_imports(kind: signal.Signals, undisturbed, tmp_path: Path) -> None:
    words, _, _ = undisturbed("bert_classes")
    while_it_imports(kind, {signal.SIGTERM: 0.3, signal.SIGINT: 0.6}[kind], words, tmp_path, 3.0)


@pytest.mark.torture
@pytest.mark.parametrize("kind", SIGNALS, ids=lambda kind: kind.name)
def test_stopped_while_it_imports_at_full_size(kind: signal.Signals, undisturbed, tmp_path: Path) -> None:
    words, _, _ = undisturbed("llama_accumulated")
    draw = random.Random(f"import {kind.name}")
    deaf = []
    for place in range(3):
        (tmp_path / str(place)).mkdir()
        deaf.append(while_it_imports(kind, draw.random(), words, tmp_path / str(place), 3.0))
    print(f"import: {kind.name} was heard {min(deaf):.3f} to {max(deaf):.3f} s after the start")


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT], ids=lambda kind: kind.name)
def test_a_second_signal_ends_at_once_and_the_run_goes_on(second: signal.Signals, undisturbed, tmp_path: Path) -> None:
    words, expected, _ = undisturbed("llama_accumulated")
    chain = Chain(words, tmp_path, undisturbed("llama_accumulated")[2])
    command, _ = chain.start()
    command.wait_for(tmp_path / "run" / "checkpoints" / "step-000003")
    command.kill(signal.SIGHUP)
    command.kill(second)
    # Of two signals sent at once the system may deliver either first.
    assert command.wait() in (128 + second, 128 + signal.SIGHUP), command.said()
    assert chain.status().state == "dead"  # nothing was written any more; the lock says that it is over
    command, _ = chain.start()
    assert command.wait() == 0, command.said()
    check_files(tmp_path)
    compare("train", expected, tmp_path)

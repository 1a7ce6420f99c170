"""Signals at random moments of every phase: saved, recorded, exit 75 or 130, and the same command ends in the same bytes.

A chain is one command, stopped again and again: its phases in their order, the moments within them drawn from a seed, the
five kinds of signal in turn. The system's timer sends them, so they come in the middle of C code as well.
"""

import random
import signal
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import crash_phases
import crash_runs
import pytest
from crash_lab import Command
from crash_phases import Told
from crash_runs import check_files, compare

from llmft.runs import lock, status
from llmft.runs.signals import SIGNALS

ALLOWANCE_S = 3.0
"""On top of the longest micro-batch and the longest save: starting to end a process, on a machine that does other work besides."""
BEFORE_STEPS = ("compose", "claim", "make model", "load", "tokenise", "trial", "generation")
STEPS = ("validation", "training", "training", "saving", "training", "validation", "training", "saving")
AFTER_STEPS = ("export", "generation", "report")
PHASES = {
    "llama_accumulated": (*(phase for phase in BEFORE_STEPS if phase != "make model"), *STEPS, *AFTER_STEPS),
    "t5_saved_beside": ("compose", "load", "tokenise", "trial", *STEPS, *AFTER_STEPS),
    "bert_classes": ("compose", "claim", "load", "tokenise", "trial", *STEPS, "export", "report"),
    "from_scratch": ("compose", "make model", "make model", "tokenise", "trial", *STEPS, *AFTER_STEPS),
    "eval": ("compose", "claim", "load", "generation", "generation", "report"),
    "predict": ("compose", "load", "generation"),
}
"""The phases in which each command of `undisturbed` is stopped, in their order."""
QUICK = {"bert_classes": [0], "predict": [0]}
FULL = {name: [1] if name in ("eval", "predict") else [1, 2] for name in PHASES}


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
        return crash_runs.start_noted(self.words, self.folder, noted, alarm, f"{self.processes}.log"), noted

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


def stopped_again_and_again(name: str, seed: int, undisturbed, folder: Path) -> None:
    words, expected, told = undisturbed(name)
    chain, draw = Chain(words, folder, told), random.Random(f"{name} {seed}")
    kinds = [SIGNALS[(seed + place) % len(SIGNALS)] for place in range(len(PHASES[name]))]
    for phase, number in zip(PHASES[name], kinds, strict=True):
        if not chain.stop(phase, draw, number):
            break
    else:
        command, _ = chain.start()
        assert command.wait() == 0, command.said()
    assert sum(chain.hits.values()) >= len(PHASES[name]) - 1
    check_files(folder)
    compare(words[0], expected, folder)
    print(f"{name} {seed}: {sum(chain.hits.values())} signals, {dict(chain.hits)};")  # shown with -s
    print(f"seconds to the exit: median {statistics.median(chain.latencies):.2f}, longest {max(chain.latencies):.2f}")


@pytest.mark.parametrize(("name", "seed"), [(name, seed) for name, seeds in QUICK.items() for seed in seeds])
def test_stopped_in_every_phase(name: str, seed: int, undisturbed, tmp_path: Path) -> None:
    stopped_again_and_again(name, seed, undisturbed, tmp_path)


@pytest.mark.torture
@pytest.mark.parametrize(("name", "seed"), [(name, seed) for name, seeds in FULL.items() for seed in seeds])
def test_stopped_in_every_phase_at_full_size(name: str, seed: int, undisturbed, tmp_path: Path) -> None:
    stopped_again_and_again(name, seed, undisturbed, tmp_path)


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

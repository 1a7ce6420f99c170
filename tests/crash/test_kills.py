"""Trainings killed again and again at random moments, by SIGKILL: the same command ends each of them in the same bytes.

A kill counts if the process was there to be killed: its exit code says so. Updates are counted by torch, in a file that the
kill cannot take back.
"""

import random
import re
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from glob import glob
from pathlib import Path

import crash_lab
import crash_runs
import pytest
from crash_lab import Command

from llmft.runs import status

STEPS, SAVE_EVERY = 24, 3
LONGEST_SERIES = 8
FORKED_S, REAL_S = 1.5, 8.0
"""About how long a process takes to its first update: the fork server has imported torch, the real command has not."""
LORA = ("adapter=lora", "adapter.r=4", "adapter.dropout=0.1")
FULL = ("adapter=none",)


@dataclass(frozen=True)
class Case:
    """One kind of training; `dir`: whether output_dir names its folder, else the fingerprint finds it under output_root."""

    task: str
    model: str
    settings: tuple[str, ...]
    dir: bool


CASES = {
    "llama_lora_accumulated": Case("summarization", "llama", (*LORA, "training.micro_tokens=64"), dir=True),
    "gpt2_full_scored_before": Case("summarization", "gpt2", (*FULL, "training.baseline=true"), dir=False),
    "bart_full_best_by_score": Case("summarization", "bart", (*FULL, "training.metric=rougeL", "training.keep=1"), dir=True),
    "bert_lora_classes": Case("classification", "bert", (*LORA, "training.eval_every=5", "training.patience=9"), dir=False),
}


@dataclass
class Series:
    """A training under attack: where it is, and what its processes have done so far."""

    words: list[str]
    case: Case
    folder: Path
    start: Callable[..., Command]
    kills: int = 0
    processes: int = 0

    @property
    def run(self) -> Path | None:
        """Its run directory, None before it is there."""
        found = [path for path in self.folder.glob("outputs/*") if path.is_dir() and not path.is_symlink()]
        assert len(found) < 2, f"the command went on with no run, but began another: {found}"
        return found[0] if found and (found[0] / status.FILE).exists() else None

    def updates(self, process: int) -> int:
        """How many updates a process made, by torch's count."""
        return crash_runs.counted(self.folder / f"{process}.steps", ".")

    def begin(self) -> Command:
        """Type the command once more."""
        self.processes += 1
        place = "output_dir=outputs/run" if self.case.dir else "output_root=outputs"
        env = {"LLMFT_CACHE": str(self.folder / "cache"), "LAB_STEPS": str(self.folder / f"{self.processes}.steps")}
        return self.start([*self.words, place], self.folder, env, self.folder / f"{self.processes}.log")

    def check_start(self, command: Command, saved: list[int], was_there: bool) -> None:
        """Assert that the command named the step it went on from, the newest that had been saved, and did not do more."""
        first = next((line for line in command.said().splitlines(keepends=True) if line.endswith("\n")), None)
        if first is not None:
            wanted = r"run \S+\n" if not was_there else r"resuming \S+ from step 0: it has no checkpoint yet\n"
            wanted = rf"resuming \S+ from step {saved[-1]}\n" if saved else wanted
            assert re.fullmatch(wanted, first), f"{first!r} is not {wanted!r}\n{command.said()}"
        assert self.updates(self.processes) <= STEPS - (saved[-1] if saved else 0)
        damaged = list(self.folder.glob("outputs/*/checkpoints/*damaged*"))
        assert not damaged, f"a kill damaged {damaged}"

    def attack(self, moment: "Moment") -> int:
        """Run the command and kill it at the moment; return its exit code, -SIGKILL if it was killed."""
        saved, was_there = crash_runs.saved_steps(self.run) if self.run else [], self.run is not None
        command = self.begin()
        try:
            moment.await_in(self, command)
            command.kill()
            code = command.wait()
        finally:
            command.kill()
        assert code in (0, -signal.SIGKILL), command.said()
        self.check_start(command, saved, was_there)
        self.kills += code == -signal.SIGKILL
        return code

    def finish(self) -> None:
        """Let the command run to its end."""
        assert self.attack(NEVER) == 0

    def check_end(self, expected: Path) -> None:
        """Assert that nothing is lost, nothing was done too often, and nobody had to help."""
        run = self.run
        assert run is not None
        crash_runs.assert_same_ending(expected, run)
        found = status.read(run)
        assert found is not None
        assert (found.state, found.exit, found.step) == ("done", 0, STEPS)
        steps = [row["step"] for row in crash_runs.record(run) if row["kind"] == "train"]
        assert steps == list(range(1, STEPS + 1))
        total = sum(map(self.updates, range(1, self.processes + 1)))
        assert STEPS <= total <= STEPS + self.kills * (SAVE_EVERY + 1), f"{total} updates, {self.kills} kills"
        hidden = [path for path in (self.folder / "outputs").rglob(".*") if path.name != ".lock"]
        assert not hidden, f"left behind: {hidden}"
        said = [line for line in (self.folder / f"{self.processes}.log").read_text().splitlines() if line[:8] == "resuming"]
        assert all(line in (run / "train.log").read_text().splitlines() for line in said)


@dataclass(frozen=True)
class Moment:
    """When to kill: `delay` seconds after `event` is seen."""

    event: str
    delay: float
    updates: int = 1

    def await_in(self, series: Series, command: Command) -> None:
        """Wait for it, or for the end of the command."""
        process, folder = series.processes, series.folder

        def seen(pattern: str) -> bool:
            return bool(glob(str(folder / "outputs" / pattern)))  # pathlib's raises where a folder vanishes meanwhile

        events: dict[str, Callable[[], bool]] = {
            "start": lambda: True,
            "claimed": lambda: seen("*/status.json"),
            "updates": lambda: series.updates(process) >= self.updates,
            "saving": lambda: seen("*/checkpoints/.step-*"),
            "saved": lambda: series.updates(process) > 0 and seen("*/checkpoints/step-*"),
            "exporting": lambda: seen("*/.model*"),
            "scoring": lambda: seen("*/predictions/*test.jsonl*"),
            "reporting": lambda: seen("*/.results.json*"),
            "never": lambda: False,
        }
        if command.wait_until(events[self.event]):
            command.wait_until(lambda: False, self.delay)


NEVER = Moment("never", 0.0)
Unharmed = Callable[[str], tuple[list[str], Path]]
KINDS = ("start", "claimed", "updates", "updates", "updates", "saving", "saved", "exporting", "scoring", "reporting")


def draw(source: random.Random, number: int, startup_s: float) -> Moment:
    """Draw a moment of the `number`-th kind: each phase of a run has its turn."""
    event = KINDS[number % len(KINDS)]
    longest = {"start": startup_s, "claimed": 0.5, "scoring": 0.05}.get(event, 0.03)
    return Moment(event, source.uniform(0.0, longest), source.randint(1, 12))


@pytest.fixture(scope="module")
def unharmed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Unharmed:
    """The words of a case, and the run directory of a run that nothing happened to; each is run once."""
    folder = tmp_path_factory.mktemp("unharmed")
    crash_runs.write_rows(folder / "data")
    done: dict[str, tuple[list[str], Path]] = {}

    def run(name: str) -> tuple[list[str], Path]:
        if name not in done:
            case = CASES[name]
            words = crash_runs.training(case.task, tiny / case.model, folder / "data", *case.settings)
            code, said = crash_lab.run([*words, f"output_dir={folder / name}"], folder)
            assert code == 0, said
            done[name] = words, folder / name
        return done[name]

    return run


def kill_again_and_again(
    name: str, wanted: int, seed: int, unharmed: Unharmed, folder: Path, start: Callable[..., Command], startup_s: float
) -> None:
    """Begin trainings, kill each up to LONGEST_SERIES times and let it end, until `wanted` kills have met a living process."""
    words, expected = unharmed(name)
    source, kinds, found = random.Random(seed), Counter[str](), 0
    drawn = seed * wanted  # another seed begins with another kind
    while found < wanted:
        place = folder / f"series-{drawn}"
        place.mkdir()
        series = Series(words, CASES[name], place, start)
        for _ in range(min(source.randint(1, LONGEST_SERIES), wanted - found)):
            moment, drawn = draw(source, drawn, startup_s), drawn + 1
            code = series.attack(moment)
            kinds[moment.event] += code != 0
            ended = series.run and status.read(series.run)
            if code == 0 or (ended and ended.state == "done"):  # killed between its last write and its exit
                break
        else:
            series.finish()
        series.check_end(expected)
        found += series.kills
    print(f"{name}, seed {seed}: {found} kills: {dict(kinds)}")


@pytest.mark.parametrize(("name", "seed"), [(name, seed) for seed, name in enumerate(CASES)])
def test_forty_kills(name: str, seed: int, unharmed: Unharmed, tmp_path: Path) -> None:
    kill_again_and_again(name, 10, seed, unharmed, tmp_path, crash_lab.start, FORKED_S)


@pytest.mark.torture
@pytest.mark.parametrize(("name", "seed"), [(name, seed) for seed, name in enumerate([*CASES, *CASES], 101)])
def test_two_hundred_kills(name: str, seed: int, unharmed: Unharmed, tmp_path: Path) -> None:
    kill_again_and_again(name, 25, seed, unharmed, tmp_path, crash_lab.start, FORKED_S)


def test_a_kill_of_the_real_command(unharmed: Unharmed, tmp_path: Path) -> None:
    kill_again_and_again("bert_lora_classes", 1, 1, unharmed, tmp_path, crash_lab.start_real, REAL_S)


@pytest.mark.torture
@pytest.mark.parametrize(("name", "seed"), [(name, seed) for seed, name in enumerate(CASES, 201)])
def test_twenty_kills_of_the_real_command(name: str, seed: int, unharmed: Unharmed, tmp_path: Path) -> None:
    kill_again_and_again(name, 5, seed, unharmed, tmp_path, crash_lab.start_real, REAL_S)

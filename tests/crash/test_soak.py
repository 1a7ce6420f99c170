"""A long training of a tiny model with a checkpoint every ten steps: memory, open files, threads and checkpoints stay few.

What the process holds is asked of the system, from outside, all along. The last third of the steps may hold what the first
third holds, of memory GROWTH_BYTES more; the first tenth is left out, in which the allocator and the kernels warm up.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import crash_lab
import crash_runs
import pytest

from llmft.runs import durable, status

SAVE_EVERY, EVAL_EVERY, KEEP = 10, 50, 2
GROWTH_BYTES = 4 << 20
"""Batches differ in length and the allocator keeps what the longest took. A leak of the model alone (140 kB), once in a save,
makes 46 MB between the middles of the two thirds of 5,000 steps; one of 2 kB a step makes 6 MB."""


@dataclass(frozen=True)
class Sample:
    """What a process holds once it has made so many updates."""

    updates: int
    rss_bytes: int
    files: int
    threads: int
    checkpoints: int
    """Entries of checkpoints/, whole, hidden and the link alike."""


def sample(pid: int, updates: int, run: Path) -> Sample:
    """Ask the system. Raises OSError once the process has ended."""
    process = Path("/proc") / str(pid)
    rss = int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    held = [len(os.listdir(folder)) for folder in (process / "fd", process / "task", run / "checkpoints")]
    return Sample(updates, rss, *held)


def soak(steps: int, tiny: Path, folder: Path) -> list[Sample]:
    """Train to the end and return samples over its steps, at least 20 of them."""
    crash_runs.write_rows(folder / "rows")
    settings = [f"training.max_steps={steps}", f"training.save_every={SAVE_EVERY}", f"training.eval_every={EVAL_EVERY}"]
    settings += ["adapter=none", f"training.keep={KEEP}", "optimizer.lr=1e-4", f"output_dir={folder / 'run'}"]
    words = crash_runs.training("classification", tiny / "bert", folder / "rows", *settings)
    counts, found = folder / "steps", list[Sample]()
    command = crash_lab.start(words, folder, {"LAB_STEPS": str(counts)})

    def look() -> bool:
        updates = crash_runs.counted(counts, ".")
        if updates >= (len(found) + 1) * steps // 200 and updates < steps:
            found.append(sample(command.pid, updates, folder / "run"))
        return False

    try:
        command.wait_until(look)
        code = command.wait()
    finally:
        command.kill()
    assert code == 0, command.said()
    return found


def assert_flat(steps: int, found: list[Sample]) -> None:
    """Assert that the last third holds no more than the first."""
    early = [each for each in found if 0.1 * steps <= each.updates < steps / 3]
    late = [each for each in found if each.updates >= steps * 2 / 3]
    assert len(early) >= 10, found
    assert len(late) >= 10, found

    def middle(samples: list[Sample], of: Callable[[Sample], int]) -> float:
        return median(map(of, samples))

    grown = middle(late, lambda each: each.rss_bytes) - middle(early, lambda each: each.rss_bytes)
    print(
        f"{steps} steps: memory {middle(early, lambda each: each.rss_bytes) / 2**20:.1f} MiB, then {grown / 2**20:+.2f} MiB; "
        f"{middle(late, lambda each: each.files)} files, {middle(late, lambda each: each.threads)} threads"
    )
    assert grown <= GROWTH_BYTES, f"{grown / 2**20:.2f} MiB more"
    assert middle(late, lambda each: each.files) <= middle(early, lambda each: each.files)
    assert middle(late, lambda each: each.threads) <= middle(early, lambda each: each.threads)
    # the newest, the best, the link to it, and the one being written or removed
    assert max(each.checkpoints for each in found) <= KEEP + 3


def assert_complete(steps: int, run: Path) -> None:
    """Assert that the record has every step and validation once, in order, and that the run ended well."""
    rows = crash_runs.record(run)
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, steps + 1))
    assert [row["step"] for row in rows if row["kind"] == "validation"] == list(range(0, steps + 1, EVAL_EVERY))
    found = status.read(run)
    assert found is not None
    assert (found.state, found.step) == ("done", steps)
    newest = crash_runs.saved_steps(run)
    assert newest[-KEEP:] == [steps - SAVE_EVERY, steps]
    assert len(newest) <= KEEP + 1
    assert [durable.verify(run / "checkpoints" / f"step-{step:06d}") for step in newest] == [[]] * len(newest)


@pytest.mark.parametrize("steps", [200, pytest.param(5000, marks=pytest.mark.torture)])
def test_what_a_long_run_holds_is_flat(steps: int, tiny: Path, tmp_path: Path) -> None:
    found = soak(steps, tiny, tmp_path)
    assert_complete(steps, tmp_path / "run")
    assert_flat(steps, found)

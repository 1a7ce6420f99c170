"""Every operation of a checkpoint's save fails once in every way: the checkpoint before it stands, and the run goes on.

The operations are those that an undisturbed run has recorded, from the flush of metrics.jsonl before the save to that of
status.json behind it: the new checkpoint, the mark on the best one, the rotation of an old one. Each is then struck in a
training of its own, by SIGKILL, a full disk, an I/O error and, where bytes are written, half a write.
"""

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import crash_lab
import crash_runs
import pytest

from llmft.runs import durable, status
from llmft.training import shelf

STRUCK = 3
"""The save that is struck: it makes step-3 the best one and rotates step-2 away."""
HOWS = ("kill", "ENOSPC", "EIO", "short")
SAID = {"ENOSPC": "No space left on device", "short": "No space left on device", "EIO": "Input/output error"}
PARTS = 8
"""Test ids that share the cases, so that several workers do."""


@dataclass
class Unharmed:
    """A training that nothing happened to, and what it did to the disk while it saved."""

    words: list[str]
    run: Path
    counted: str
    """Folder in the run directory whose operations are counted; beside the training, those of other folders come as they like."""
    first: int
    """Number of the save's first operation, from 1."""
    operations: list[dict[str, Any]]
    """Those of the save."""

    @property
    def rotation(self) -> range:
        """Places of the operations that remove an old checkpoint: the run goes on without them."""
        begins = [Path(each["path"]).name == "step-000002" for each in self.operations].index(True)
        ends = [Path(each["path"]).name.startswith(".status.json") for each in self.operations]
        return range(begins, ends.index(True) if True in ends else len(ends))

    def cases(self) -> Iterator[tuple[int, str]]:
        """Every operation in every way; half a write where bytes are written."""
        for place, operation in enumerate(self.operations):
            for how in HOWS:
                if how != "short" or operation["op"] == "write":
                    yield place, how


def begin(tiny: Path, folder: Path, name: str, *settings: str) -> Unharmed:
    """Run a training of six steps and record what it does."""
    crash_runs.write_rows(folder)
    replaced = {
        "training.max_steps=24": "max_steps=6",
        "training.save_every=3": "save_every=2",
        "training.eval_every=6": "eval_every=3",
    }
    words = crash_runs.training(
        "summarization", tiny / "llama", folder, "adapter=lora", "adapter.r=2", "training.keep=1", *settings
    )
    words = [f"training.{replaced[word]}" if word in replaced else word for word in words]
    run, log = folder / name, folder / f"{name}.operations"
    code, said = crash_lab.run([*words, f"output_dir={run}"], folder, {"LLMFT_OPERATIONS": str(log)})
    assert code == 0, said
    beside = "training.async_save=true" in settings
    counted = "/checkpoints" if beside else ""
    done = [row for row in crash_lab.rows(log) if f"{row['path']}/".startswith(f"{run}{counted}/")]
    made = [row.get("to") for row in done].index(str(run / "checkpoints" / f"step-{STRUCK:06d}"))
    names = [Path(row["path"]).name for row in done]
    if beside:
        first = next(number for number, name in enumerate(names) if name.startswith(f".step-{STRUCK:06d}."))
        last = next(number for number in range(made, len(done)) if done[number]["op"] == "mkdir") - 1
    else:
        first = max(number for number in range(made) if names[number] == "metrics.jsonl")
        last = next(number for number in range(made, len(done)) if done[number].get("to") == str(run / "status.json")) + 1
        assert done[first]["op"] == done[last]["op"] == "fsync"
    return Unharmed(words, run, counted, first + 1, done[first : last + 1])


@pytest.fixture(scope="module")
def unharmed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Unharmed:
    return begin(tiny, tmp_path_factory.mktemp("writes"), "unharmed")


@pytest.fixture(scope="module")
def unharmed_beside(unharmed: Unharmed, tiny: Path) -> Unharmed:
    return begin(tiny, unharmed.run.parent, "unharmed_beside", "training.async_save=true")


def strike(unharmed: Unharmed, folder: Path, place: int, how: str) -> None:
    """Let one operation fail, then repeat the command."""
    operation = unharmed.operations[place]
    run = folder / f"{place}-{how}"
    words = [*unharmed.words, f"output_dir={run}"]
    failpoint = f"*:{unharmed.first + place}:{how}:{run}{unharmed.counted}"
    code, said = crash_lab.run(words, folder, {"LLMFT_FAILPOINT": failpoint})
    where = f"{failpoint} {operation}\n{said}"
    assert "Traceback" not in said, where
    standing = {path.name for path in shelf.steps_on_disk(run / "checkpoints") if not durable.verify(path)}
    saved = f"step-{STRUCK:06d}"
    made = any(each.get("to", "").endswith(f"/{saved}") for each in unharmed.operations[:place])
    assert code == 0 or (saved if made else "step-000002") in standing, where
    rotated = place in unharmed.rotation
    found = status.read(run)
    assert found is not None
    if how == "kill":
        assert (code, found.state) == (-signal.SIGKILL, "dead"), where
    elif rotated:
        assert (code, found.state) == (0, "done"), where
        assert f"checkpoint step-000002, which is no longer needed, could not be removed: {SAID[how]}" in said, where
    else:
        assert (code, found.state) == (1, "stopped"), where
        assert re.search(
            rf"error: \S+: cannot be written: {SAID[how]} \(.+ MB free\)\. Free space .+ repeat the command", said
        ), where
    if code != 0:
        code, said = crash_lab.run(words, folder)
        assert code == 0, f"{where}\n{said}"
        assert said.startswith(f"resuming {run} from step {3 if saved in standing else 2}\n"), f"{where}\n{said}"
    crash_runs.assert_same_ending(unharmed.run, run)
    left = [path.name for path in (run / "checkpoints").iterdir() if path.name.startswith(".")]
    assert len(left) <= (1 if rotated and how != "kill" else 0), where  # the next command removes it


def test_the_save_has_all_its_parts(unharmed: Unharmed) -> None:
    seen = [(row["op"], Path(row["path"]).name.split(".tmp-")[0]) for row in unharmed.operations]
    for name in ("weights.safetensors", "optimizer.safetensors", "random.safetensors", "state.json", "manifest.json"):
        assert seen.index(("open", name)) < seen.index(("write", name)) < seen.index(("fsync", name))
    assert [op for op, name in seen if name == ".step-000003"] == ["mkdir", "fsync", "rename"]
    assert [op for op, name in seen if name == ".best"] == ["symlink", "rename"]
    assert [op for op, name in seen if "step-000002" in name] == ["rename", "rmdir"]
    assert [op for op, name in seen].count("unlink") == 5


@pytest.mark.parametrize("part", range(2))
def test_some_operations(part: int, unharmed: Unharmed, tmp_path: Path) -> None:
    """Operations of several kinds, in every way."""
    cases = list(unharmed.cases())[5::19][part::2]
    assert len(cases) == 3
    for place, how in cases:
        strike(unharmed, tmp_path, place, how)


def test_one_operation_beside_the_training(unharmed_beside: Unharmed, tmp_path: Path) -> None:
    strike(unharmed_beside, tmp_path, 3, "ENOSPC")


@pytest.mark.torture
@pytest.mark.parametrize("part", range(PARTS))
def test_every_operation(part: int, unharmed: Unharmed, tmp_path: Path) -> None:
    cases = list(unharmed.cases())
    assert len(cases) >= 110
    for place, how in cases[part::PARTS]:
        strike(unharmed, tmp_path, place, how)


@pytest.mark.torture
@pytest.mark.parametrize("how", ["kill", "ENOSPC"])
def test_operations_beside_the_training(how: str, unharmed: Unharmed, unharmed_beside: Unharmed, tmp_path: Path) -> None:
    crash_runs.assert_same_ending(unharmed.run, unharmed_beside.run)
    for place in range(how == "kill", len(unharmed_beside.operations), 3):
        strike(unharmed_beside, tmp_path, place, how)


def test_a_disk_that_fails_for_good(unharmed: Unharmed, tmp_path: Path) -> None:
    """Nothing can be written or removed any more, not even how the run ended; the lock tells that it is over."""
    words = [*unharmed.words, f"output_dir={tmp_path}/run"]
    run, where = tmp_path / "run", unharmed.first + 5
    code, said = crash_lab.run(words, tmp_path, {"LLMFT_FAILPOINT": f"*:{where}+:EIO:{run}"})
    assert code == 1, said
    assert "cannot be written: Input/output error" in said
    found = status.read(run)
    assert found is not None
    assert found.state == "dead"
    assert not durable.verify(run / "checkpoints/step-000002")
    code, said = crash_lab.run(words, tmp_path)
    assert code == 0, said
    assert said.startswith(f"resuming {run} from step 2\n"), said
    crash_runs.assert_same_ending(unharmed.run, run)
    assert not [path for path in (run / "checkpoints").iterdir() if path.name.startswith(".")]

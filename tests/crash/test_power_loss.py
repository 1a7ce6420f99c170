"""The power fails at any moment: whatever the disk then holds, the newest checkpoint that had been saved is there, whole.

The states come from the record of a real training with several saves, a best one that moves and old ones that are removed;
`crash_disk` says what a file system may make of it. In each state the real recovery runs, and what it loads is compared
with what was saved at that step. strace tells whether the record misses anything that the kernel was asked for.
"""

import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import crash_lab
import crash_runs
import pytest
import torch
from crash_disk import Disk
from safetensors.torch import load_file

from llmft.config.schema import Adapter, AdapterKind
from llmft.models.adapter import add_adapter
from llmft.models.load import load_pretrained
from llmft.runs import durable, manifest
from llmft.training import checkpoint, shelf
from llmft.training.optimizer import adamw, optimizer_state, parameter_groups

SEED = 20_260_102
PARTS = 4
CHANCES = (0.0, 1.0, 0.5, 0.1, 0.9)
"""That an unflushed change is on the disk all the same. Nothing and everything are tried at each moment."""


@dataclass
class Recorded:
    """A training of eight steps, a checkpoint each: as it ran, with all its checkpoints, and as it was recorded."""

    words: list[str]
    folder: Path
    all_kept: Path
    record: Path


@pytest.fixture(scope="module")
def recorded(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("power")
    crash_runs.write_rows(folder)
    changed = {"max_steps": 8, "save_every": 1, "eval_every": 2, "keep": 2}
    words = crash_runs.training("summarization", tiny / "llama", folder, "adapter=lora", "adapter.r=2")
    words = [word for word in words if word.split("=")[0].removeprefix("training.") not in changed]
    words += [f"training.{name}={value}" for name, value in changed.items()]
    record = folder / "operations"
    for run, more, env in (("run", [], {"LLMFT_OPERATIONS": str(record)}), ("all", ["training.keep=99"], {})):
        code, said = crash_lab.run([*words[: -len(more) or None], *more, f"output_dir={folder}/{run}"], folder, env)
        assert code == 0, said
    return Recorded(words, folder, folder / "all", record)


def states(recorded: Recorded, place: Path, count: int, draws: random.Random) -> Iterator[tuple[int, str]]:
    """Fill `place` with `count` different states, one after the other, from all moments alike.

    Give for each the newest step whose save had returned (-1: none had), and words to find it again by.
    """
    seen: set[bytes] = set()
    for again in range(99):
        disk = Disk(recorded.record, recorded.folder)
        returned, renamed = -1, -1
        for number, row in enumerate(disk.rows):
            disk.step(number)
            if row["op"] == "rename" and (made := re.search(r"/checkpoints/step-(\d+)$", row["to"])):
                renamed = int(made[1])
            if row["op"] == "fsync" and row["path"].endswith("/run/checkpoints"):
                returned = renamed
            if not disk.unflushed() or not disk.find(recorded.folder / "run"):
                continue
            share = count / len(disk.rows)
            for turn in range(int(share + draws.random())):
                chance = CHANCES[turn] if again == 0 and turn < 2 and share > 1 else draws.choice(CHANCES)
                seed = draws.randrange(1 << 32)
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir(parents=True)
                disk.left(random.Random(seed), place, chance)
                digest = digest_of(place)
                if digest not in seen:
                    seen.add(digest)
                    yield returned, f"after operation {number} {row}, chance {chance}, seed {seed}"
                if len(seen) == count:
                    return


def digest_of(folder: Path) -> bytes:
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        found.update(f"{path}\0{path.is_symlink()}\0".encode())
        found.update(hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b"")
    return found.digest()


def recover(recorded: Recorded, tiny: Path, place: Path, count: int, seed: int) -> Counter[int]:
    """Recover from `count` states. Return how many were gone on from at each step."""
    pretrained = load_pretrained(tiny / "llama", torch.float32, torch.device("cpu"))
    add_adapter(pretrained, Adapter(name=AdapterKind.lora, r=2))
    names: dict[torch.Tensor, str] = {weight: name for name, weight in pretrained.trained}
    kept = {shelf.step_of(path): path for path in shelf.steps_on_disk(recorded.all_kept / "checkpoints")}
    prints = manifest.read(kept[1])[1]["fingerprints"]
    expected = {
        step: [load_file(path / f"{name}.safetensors") for name in ("weights", "optimizer")] for step, path in kept.items()
    }
    found_at: Counter[int] = Counter()
    for returned, where in states(recorded, place, count, random.Random(seed)):
        checkpoints = place / "run" / "checkpoints"
        if checkpoints.exists():
            durable.remove_leftovers(checkpoints)
        found, notes = shelf.newest(checkpoints, prints)
        assert notes == [], f"{where}: {notes}"  # what a power failure leaves is whole, or nothing
        step = shelf.step_of(found) if found else -1
        assert step >= returned, where
        found_at[step] += 1
        if found:
            optimizers = adamw(parameter_groups(pretrained.trained, 0.01), 0.01, 0.01)
            assert checkpoint.load(found, pretrained, optimizers, prints).step == step
            weights, moments = expected[step]
            assert all(torch.equal(weight, weights[name]) for name, weight in pretrained.trained), where
            loaded, _ = optimizer_state(optimizers, names)
            assert loaded.keys() == moments.keys(), where
            assert all(torch.equal(loaded[name], moments[name]) for name in moments), where
    return found_at


@pytest.mark.parametrize("part", range(2))
def test_three_hundred_states(part: int, recorded: Recorded, tiny: Path, tmp_path: Path) -> None:
    found = recover(recorded, tiny, tmp_path / "state", 150, SEED + part)
    assert found.total() == 150
    assert len(found) >= 4


@pytest.mark.torture
@pytest.mark.parametrize("part", range(PARTS))
def test_three_thousand_states(part: int, recorded: Recorded, tiny: Path, tmp_path: Path) -> None:
    found = recover(recorded, tiny, tmp_path / "state", 800, SEED + 100 + part)
    assert found.total() == 800
    assert set(found) == {-1, *range(9)}  # before the first save, and at every step


def go_on(recorded: Recorded, tmp_path: Path, every: int) -> int:
    """Repeat the command in one state of `every`; return how many there were."""
    place, number, done = tmp_path / "state", -1, 0
    for returned, where in states(recorded, place, 150, random.Random(SEED + 200)):
        number += 1
        if number % every != every - 1 or returned < 0:
            continue
        code, said = crash_lab.run([*recorded.words, f"output_dir={place}/run"], tmp_path)
        assert code == 0, f"{where}\n{said}"
        step = int(re.match(r"resuming \S+ from step (\d+)\n", said)[1])  # type: ignore[index]
        assert step >= returned, where
        crash_runs.assert_same_ending(recorded.folder / "run", place / "run")
        done += 1
    return done


def test_the_command_goes_on_from_a_state(recorded: Recorded, tmp_path: Path) -> None:
    assert go_on(recorded, tmp_path, 50) >= 2


@pytest.mark.torture
def test_the_command_goes_on_from_states(recorded: Recorded, tmp_path: Path) -> None:
    assert go_on(recorded, tmp_path, 7) >= 15


CALLS = {
    **{"openat": "open", "open": "open", "creat": "open", "write": "write", "writev": "write", "pwrite64": "write"},
    **{"fsync": "fsync", "fdatasync": "fsync", "rename": "rename", "renameat": "rename", "renameat2": "rename"},
    **{"symlink": "symlink", "symlinkat": "symlink", "link": "link", "linkat": "link", "unlink": "unlink"},
    **{"unlinkat": "unlink", "mkdir": "mkdir", "mkdirat": "mkdir", "rmdir": "rmdir", "truncate": "truncate"},
    **{"ftruncate": "truncate", "fallocate": "truncate", "chmod": "chmod", "fchmod": "chmod", "fchmodat": "chmod"},
}
"""System calls that change a file or folder, or flush it -> what the record calls them."""
CALL = re.compile(r"(?:\d+ +)?(\w+)\((.*)\) += (-?\d+).*")
OTHERS = re.compile(r"train\.log|\.lock|model|\.model\.tmp-.*")
"""What a run directory holds that is not written through the layer: the log, the lock, and the model, which others write."""


def calls_seen(trace: Path, run: Path) -> list[tuple[str, str]]:
    """What the kernel was asked to do below `run`, in its order: operation and path."""
    begun: dict[str, str] = {}
    found = []
    for line in trace.read_text(errors="replace").splitlines():
        pid = line.split(" ", 1)[0]
        if line.endswith("<unfinished ...>"):
            begun[pid] = line.removesuffix("<unfinished ...>").rstrip()
            continue
        if resumed := re.match(r"\d+ +<\.\.\. \w+ resumed>(.*)", line):
            line = begun.pop(pid) + resumed[1]
        call = CALL.fullmatch(line)
        if not call or call[1] not in CALLS or call[3] == "-1":
            continue
        if CALLS[call[1]] == "open" and not re.search("O_CREAT|O_WRONLY|O_RDWR", call[2]):
            continue
        descriptor = call[1] in ("write", "writev", "pwrite64", "fsync", "fdatasync", "ftruncate", "fallocate", "fchmod")
        paths = re.findall(r"^\d+<([^>]*)>", call[2]) if descriptor else re.findall(r'"([^"]*)"', call[2])
        path = paths[-1] if call[1].startswith("symlink") else paths[0] if paths else ""
        operation = "rmdir" if call[1] == "unlinkat" and "AT_REMOVEDIR" in call[2] else CALLS[call[1]]
        if f"{path}/".startswith(f"{run}/"):
            found.append((operation, path))
    return found


@pytest.mark.torture
def test_strace_sees_nothing_that_the_record_misses(recorded: Recorded, tmp_path: Path) -> None:
    assert shutil.which("strace"), "this test needs strace: apt-get install strace"
    run, trace, record = tmp_path / "run", tmp_path / "trace", tmp_path / "operations"
    words = [*recorded.words, f"output_dir={run}"]
    command = ["strace", "-f", "-y", "-s", "0", "--seccomp-bpf", "-o", str(trace), "-e", f"trace={','.join(CALLS)}"]
    env = os.environ | {"LLMFT_OPERATIONS": str(record)}
    done = subprocess.run(
        [*command, sys.executable, "-m", "llmft", *words], cwd=tmp_path, env=env, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    seen = calls_seen(trace, run)
    told = [(row["op"], row["path"]) for row in crash_lab.rows(record) if f"{row['path']}/".startswith(f"{run}/")]
    within = {what: [each for each in found if "/checkpoints" in each[1]] for what, found in (("seen", seen), ("told", told))}
    assert within["seen"] == within["told"]  # every one, in the same order
    assert len(within["seen"]) >= 200
    print(f"{len(within['seen'])} operations in checkpoints: {Counter(operation for operation, _ in within['seen'])}")
    missed = Counter(seen) - Counter(told)
    besides = {path for _, path in missed if not OTHERS.fullmatch(Path(path).relative_to(run).parts[0])}
    assert besides == set()
    assert not Counter(told) - Counter(seen)

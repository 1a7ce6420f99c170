"""Checkpoints damaged in every way a disk or a person can think of: noticed before anything is loaded, and stepped around.

The damage is drawn from a fixed seed. The oracle is the pristine copy: a folder is damaged if its names or bytes are other
than they were, and then never the one that is gone on from; what is loaded is, bit for bit, what was saved at that step.
"""

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import crash_damages
import crash_lab
import crash_runs
import pytest
import torch
from safetensors.torch import load_file

from llmft.config.schema import Adapter, AdapterKind
from llmft.models.adapter import add_adapter
from llmft.models.load import Pretrained, load_pretrained
from llmft.training import checkpoint, shelf
from llmft.training.checkpoint import Position
from llmft.training.optimizer import adamw, parameter_groups

STEPS = (3, 6, 9)
BEST = {3: 3, 6: 6, 9: 6}
SEED = 20_260_101
PARTS = 4
DAMAGES = crash_damages.DAMAGES

PRINTS = {"config": "c", "data": "d", "model": "m"}
OTHER = {"config": "c", "data": "another", "model": "m"}


def open_model(tiny: Path) -> tuple[Pretrained, list[torch.optim.Optimizer]]:
    pretrained = load_pretrained(tiny / "llama", torch.float32, torch.device("cpu"))
    torch.manual_seed(0)
    add_adapter(pretrained, Adapter(name=AdapterKind.lora, r=2))
    return pretrained, adamw(parameter_groups(pretrained.trained, 0.0), 0.01, 0.0)


@pytest.fixture(scope="module")
def pristine(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The checkpoints of a run, and of another whose files have the same sizes."""
    folders = {}
    for name, prints, shift in (("own", PRINTS, 0.0), ("other", OTHER, 1.0)):
        folders[name] = tmp_path_factory.mktemp(name) / "checkpoints"
        pretrained, optimizers = open_model(tiny)
        for step in range(1, STEPS[-1] + 1):
            for _, weight in pretrained.trained:
                weight.grad = torch.randn(weight.shape) + shift
            optimizers[0].step()
            if step in STEPS:
                position = Position(step=step, best=1.0 / step, best_step=BEST[step])
                checkpoint.write(folders[name], checkpoint.snapshot(pretrained, optimizers, position), prints)
        shelf.mark_best(folders[name], BEST[STEPS[-1]])
    return folders


def content(folder: Path) -> dict[str, bytes | None] | None:
    """Names and bytes of a folder, None for what is no file."""
    if not folder.is_dir():
        return None
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }


def run_damages(tiny: Path, tmp_path: Path, pristine: dict[str, Path], numbers: range) -> None:
    """Damage the newest checkpoint, or two, or any; go on from what is left; compare with the pristine copy."""
    pretrained, optimizers = open_model(tiny)
    first = {name: weight.detach().clone() for name, weight in pretrained.trained}
    saved = {step: load_file(shelf.folder_of(pristine["own"], step) / "weights.safetensors") for step in STEPS}
    moments = {step: load_file(shelf.folder_of(pristine["own"], step) / "optimizer.safetensors") for step in STEPS}
    was = {step: content(shelf.folder_of(pristine["own"], step)) for step in STEPS}
    kinds: Counter[str] = Counter()
    for number in numbers:
        draw = random.Random(f"{SEED}-{number}")
        checkpoints = tmp_path / "checkpoints"
        shutil.rmtree(checkpoints, ignore_errors=True)
        shutil.copytree(pristine["own"], checkpoints, symlinks=True)
        for step in draw.choice([[9], [9], [6], [9, 6], [9, 3], [6, 3]]):
            kind = DAMAGES[number % len(DAMAGES)] if step != 3 else draw.choice(DAMAGES)
            folder = shelf.folder_of(checkpoints, step)
            if folder.is_dir() and list(folder.iterdir()):
                kind(folder, pristine["other"], draw)
                kinds[kind.__name__] += 1
        where = f"seed {SEED}-{number}"
        whole = {step for step in STEPS if content(shelf.folder_of(checkpoints, step)) == was[step]}
        if whole == set(STEPS):  # what was exchanged was exchanged back
            crash_damages.flip(shelf.folder_of(checkpoints, 9), pristine["other"], draw)
            whole = {3, 6}
        usable = [step for step in STEPS if step in whole and BEST[step] in whole]
        for step in set(STEPS) - whole:  # asked for by name, it is refused and nothing is put into the model
            with pytest.raises(checkpoint.LlmftError):
                checkpoint.load(shelf.folder_of(checkpoints, step), pretrained, optimizers, PRINTS)
        assert all(torch.equal(weight, first[name]) for name, weight in pretrained.trained), where
        found, notes = shelf.newest(checkpoints, PRINTS)
        assert found == (shelf.folder_of(checkpoints, usable[-1]) if usable else None), f"{where}: {notes}"
        gone = [step for step in STEPS if step > (usable[-1] if usable else 0)]
        assert len(notes) == len(gone), f"{where}: {notes}"
        assert all(" is damaged (" in note or " was set aside: the best one so far" in note for note in notes), where
        assert all("\n" not in note for note in notes), f"{where}: {notes}"
        if found:
            step = usable[-1]
            assert checkpoint.load(found, pretrained, optimizers, PRINTS) == Position(
                step, best=1.0 / step, best_step=BEST[step]
            )
            assert all(torch.equal(weight, saved[step][name]) for name, weight in pretrained.trained), where
            names = {weight: name for name, weight in pretrained.trained}
            loaded, _ = checkpoint.optimizer_state(optimizers, names)
            assert loaded.keys() == moments[step].keys()
            assert all(torch.equal(loaded[name], moments[step][name]) for name in loaded), where
            with torch.no_grad():
                for name, weight in pretrained.trained:
                    weight.copy_(first[name])
    assert len(kinds) == len(DAMAGES)


@pytest.mark.parametrize("part", range(2))
def test_a_hundred_damages(part: int, tiny: Path, tmp_path: Path, pristine: dict[str, Path]) -> None:
    run_damages(tiny, tmp_path, pristine, range(part * 50, part * 50 + 50))


@pytest.mark.torture
@pytest.mark.parametrize("part", range(PARTS))
def test_a_thousand_damages(part: int, tiny: Path, tmp_path: Path, pristine: dict[str, Path]) -> None:
    run_damages(tiny, tmp_path, pristine, range(100 + part * 250, 100 + part * 250 + 250))


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def leave_the_manifest(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != "manifest.json":
            path.unlink()


def flip_a_weight(folder: Path) -> None:
    path = folder / "weights.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 64]))


@pytest.fixture(scope="module")
def runs(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path, Path]:
    """The words of a training, a run of them that nothing happened to, and one killed with the checkpoints 0, 2, 4 and 6."""
    folder = tmp_path_factory.mktemp("runs")
    crash_runs.write_rows(folder)
    words = crash_runs.training("summarization", tiny / "llama", folder, "adapter=lora", "adapter.r=2", "training.keep=9")
    changed = {
        "training.max_steps=24": "training.max_steps=8",
        "training.save_every=3": "training.save_every=2",
        "training.eval_every=6": "training.eval_every=4",  # 4 is the best of those that the kill leaves
    }
    words = [changed.get(word, word) for word in words]
    code, said = crash_lab.run([*words, f"output_dir={folder}/unharmed"], folder)
    assert code == 0, said
    env = {"LLMFT_FAILPOINT": "rename:1:kill:.step-000008"}
    assert crash_lab.run([*words, f"output_dir={folder}/killed"], folder, env)[0] == -9
    return words, folder / "unharmed", folder / "killed"


@pytest.mark.parametrize(
    ("damage", "steps", "goes_on_from", "why"),
    [
        (empty, [6], 4, "no manifest.json"),
        (leave_the_manifest, [6], 4, "optimizer.safetensors: missing"),
        (flip_a_weight, [4], 2, "weights.safetensors: SHA-256 differs from manifest.json"),
        (flip_a_weight, [0, 2, 4, 6], 0, "weights.safetensors: SHA-256 differs from manifest.json"),
    ],
)
def test_the_command_says_it_and_goes_on_to_the_same_bytes(
    damage: Callable[[Path], None],
    steps: list[int],
    goes_on_from: int,
    why: str,
    runs: tuple[list[str], Path, Path],
    tmp_path: Path,
) -> None:
    words, unharmed, killed = runs
    run = tmp_path / "run"
    shutil.copytree(killed, run, symlinks=True)
    for step in steps:
        damage(shelf.folder_of(run / "checkpoints", step))
    code, said = crash_lab.run([*words, f"output_dir={run}"], tmp_path)
    assert code == 0, said
    first, *rest = said.splitlines()
    assert first == f"resuming {run} from step {goes_on_from}{'' if goes_on_from else ': it has no whole checkpoint'}"
    told = [line for line in rest if "set aside" in line]
    gone = [step for step in (6, 4, 2, 0) if step > goes_on_from or goes_on_from == 0]
    assert len(told) == len(gone)
    for line, step in zip(told, gone, strict=True):
        if step in steps:
            assert line.startswith(f"checkpoint step-{step:06d} is damaged (")
            assert line.endswith(f"{why}) and was set aside")
        else:
            best = "the best one so far, step-000004, is damaged or gone"
            assert line == f"checkpoint step-{step:06d} was set aside: {best}"
        assert line in (run / "train.log").read_text()
        shutil.rmtree(run / f"checkpoints/step-{step:06d}.damaged-1")  # neither used nor lost
    crash_runs.assert_same_ending(unharmed, run)

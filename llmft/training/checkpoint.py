"""Checkpoints: everything a run needs to go on as if it had never stopped, in safetensors and JSON."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.optim import Optimizer

from llmft.hardware.determinism import rng_state, set_rng_state
from llmft.models.load import Pretrained
from llmft.runs import durable
from llmft.training.optimizer import load_optimizer_state, optimizer_state

FORMAT = 1


@dataclass
class Position:
    """Where a run is: counts of what was done, and the best validation so far."""

    step: int = 0
    examples: int = 0
    tokens: int = 0
    loss_units: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_step: int | None = None
    worse: int = 0
    """Validations since the best one."""
    last_loss: float | None = None
    validated: int | None = None
    """Step of the newest validation, so that none is skipped or done twice."""
    validation_loss: float | None = None
    validation_loss_before: float | None = None
    ended: str | None = None
    """Why training is over: steps or patience; None while it goes on."""


def save(checkpoints: Path, pretrained: Pretrained, optimizers: Sequence[Optimizer], position: Position) -> Path:
    """Write checkpoints/step-N, whole or not at all, and return it. One that is there already is kept."""
    folder = checkpoints / f"step-{position.step:06d}"
    if folder.exists():
        if not durable.verify(folder):
            return folder
        set_aside(folder)
    names: dict[torch.Tensor, str] = {weight: name for name, weight in pretrained.trained}
    tensors, values = optimizer_state(optimizers, names)
    random_tensors, random_values = rng_state()
    with durable.directory(folder) as new:
        save_file({name: weight.detach().contiguous() for name, weight in pretrained.trained}, new / "weights.safetensors")
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, new / "optimizer.safetensors")
        save_file(random_tensors, new / "random.safetensors")
        state = {"format": FORMAT, "position": asdict(position), "optimizer": values, "random": random_values}
        (new / "state.json").write_text(json.dumps(state, indent=2))
    assert not durable.verify(folder), f"{folder} is not what was written"
    return folder


def mark_best(checkpoints: Path, folder: Path) -> None:
    """Let checkpoints/best point at `folder`."""
    durable.symlink(checkpoints / "best", Path(folder.name))


def rotate(checkpoints: Path, keep: int) -> None:
    """Remove all but the `keep` newest checkpoints and the best one, by step number."""
    best = (checkpoints / "best").resolve()
    for folder in steps_on_disk(checkpoints)[keep:]:
        if folder.resolve() != best:
            shutil.rmtree(folder)


def steps_on_disk(checkpoints: Path) -> list[Path]:
    """Return the checkpoint folders, newest first."""
    return sorted(checkpoints.glob("step-" + "[0-9]" * 6), key=lambda folder: folder.name, reverse=True)


def step_of(folder: Path) -> int:
    """Return the step of a checkpoint folder."""
    return int(folder.name.removeprefix("step-"))


def newest(checkpoints: Path) -> tuple[Path | None, list[str]]:
    """Return the newest checkpoint that is whole, and a sentence for each damaged one that was set aside for it."""
    notes: list[str] = []
    for folder in steps_on_disk(checkpoints):
        damage = durable.verify(folder)
        if not damage:
            return folder, notes
        set_aside(folder)
        notes.append(f"checkpoint {folder.name} is damaged ({damage[0]}) and was set aside")
    return None, notes


def set_aside(folder: Path) -> None:
    """Rename a damaged checkpoint, so that it is neither used nor lost."""
    number = 1
    while (target := folder.with_name(f"{folder.name}.damaged-{number}")).exists():
        number += 1
    folder.rename(target)


def load(folder: Path, pretrained: Pretrained, optimizers: Sequence[Optimizer]) -> Position:
    """Put weights, optimizer and random states back as they were; return the position."""
    state = json.loads((folder / "state.json").read_text())
    load_weights(folder, pretrained)
    names: dict[torch.Tensor, str] = {weight: name for name, weight in pretrained.trained}
    load_optimizer_state(optimizers, names, load_file(folder / "optimizer.safetensors"), state["optimizer"])
    set_rng_state(load_file(folder / "random.safetensors"), state["random"])
    return Position(**state["position"])


@torch.no_grad()
def load_weights(folder: Path, pretrained: Pretrained) -> None:
    """Put a checkpoint's trained weights into the model."""
    saved = load_file(folder / "weights.safetensors")
    for name, weight in pretrained.trained:
        weight.copy_(saved[name])

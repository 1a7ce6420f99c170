"""Checkpoints: everything a run needs to go on as if it had never stopped, in safetensors and JSON."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from torch.optim import Optimizer

from llmft.errors import LlmftError
from llmft.hardware.determinism import rng_state, set_rng_state
from llmft.models.load import Pretrained
from llmft.runs import durable
from llmft.training import tensors
from llmft.training.optimizer import load_optimizer_state, optimizer_state
from llmft.training.shelf import FORMAT, Prints, folder_of, problems, set_aside


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
    micro_tokens: int | None = None
    """Tokens of one micro-batch: as planned, or fewer since memory ran out; sums are rounded in its order."""
    norms: list[float] = field(default_factory=list)
    """The newest gradient norms, where training.skip_spikes looks at them."""
    skipped: int = 0
    """Steps without an update, their gradients being spikes."""
    skipped_in_row: int = 0
    ended: str | None = None
    """Why training is over: steps or patience; None while it goes on."""


@dataclass
class State:
    """What a checkpoint holds, ready to be written."""

    position: Position
    weights: dict[str, Tensor]
    optimizer: tuple[dict[str, Tensor], dict[str, Any]]
    random: tuple[dict[str, Tensor], dict[str, Any]]


def snapshot(pretrained: Pretrained, optimizers: Sequence[Optimizer], position: Position) -> State:
    """Return the state as it is now. Weights and optimizer are not copied: write it, or `copy` it, before the next step."""
    names: dict[Tensor, str] = {weight: name for name, weight in pretrained.trained}
    position = Position(**asdict(position))  # lists too
    return State(position, dict(pretrained.trained), optimizer_state(optimizers, names), rng_state())


def copy(state: State) -> State:
    """Return a copy in the memory of the processor that later steps do not change."""
    optimizer, values = state.optimizer
    return replace(state, weights=_copied(state.weights), optimizer=(_copied(optimizer), dict(values)))


def write(checkpoints: Path, state: State, prints: Prints) -> Path:
    """Write checkpoints/step-N, whole or not at all, read it back, and return it. One that is there already is kept.

    Raises LlmftError if it cannot be written, or does not come back as it was written.
    """
    position = state.position
    folder = folder_of(checkpoints, position.step)
    if os.path.lexists(folder):
        if not problems(folder, prints):
            return folder
        set_aside(folder)
    facts = {"format": FORMAT, "step": position.step, "best_step": position.best_step, "fingerprints": prints}
    values = {"position": asdict(position), "optimizer": state.optimizer[1], "random": state.random[1]}
    with durable.draft(folder, facts) as new:
        new.write("weights.safetensors", tensors.chunks(state.weights))
        new.write("optimizer.safetensors", tensors.chunks(state.optimizer[0]))
        new.write("random.safetensors", tensors.chunks(state.random[0]))
        new.write("state.json", [json.dumps(values, indent=2).encode()])
    damage = durable.verify(folder, from_disk=True)
    if damage:
        set_aside(folder)
        raise LlmftError(
            f"{damage[0]}: the disk gave back something else than was written. The checkpoints before it are as they were. "
            "Check the disk, or name another output_root, then repeat the command."
        )
    return folder


def load(folder: Path, pretrained: Pretrained, optimizers: Sequence[Optimizer], prints: Prints) -> Position:
    """Put weights, optimizer and random states back as they were; return the position.

    Everything is checked before anything is changed. Raises LlmftError if something is wrong with it.
    """
    damage = problems(folder, prints)
    if damage:
        raise LlmftError(f"{damage[0]}. Repeat the command: it goes on from the checkpoint before this one.")
    state = json.loads((folder / "state.json").read_bytes())
    names: dict[Tensor, str] = {weight: name for name, weight in pretrained.trained}
    _load_weights(folder, pretrained)
    load_optimizer_state(optimizers, names, _read(folder / "optimizer.safetensors"), state["optimizer"])
    set_rng_state(_read(folder / "random.safetensors"), state["random"])
    return Position(**state["position"])


def load_best(checkpoints: Path, step: int, pretrained: Pretrained, prints: Prints) -> None:
    """Put the best weights into the model.

    Raises LlmftError if that checkpoint is damaged; the run then goes back to one from before it and makes it again.
    """
    folder = folder_of(checkpoints, step)
    damage = problems(folder, prints)
    if damage:
        if os.path.lexists(folder):
            set_aside(folder)
        raise LlmftError(
            f"the best checkpoint, {folder.name}, is damaged ({damage[0]}) and was set aside. Repeat the command: it goes back to "
            "a checkpoint from before it, or to the start, and trains to the same weights again."
        )
    _load_weights(folder, pretrained)


@torch.no_grad()
def _load_weights(folder: Path, pretrained: Pretrained) -> None:
    path = folder / "weights.safetensors"
    with safe_open(path, "pt") as saved:
        shapes = {name: saved.get_slice(name).get_shape() for name in saved.keys()}  # noqa: SIM118
        if shapes != {name: list(weight.shape) for name, weight in pretrained.trained}:
            raise LlmftError(
                f"{path}: the weights are not those that the model trains. Were they written with another version of transformers "
                "or peft (environment.json)? Install that one, or start anew with training.resume=never."
            )
        for name, weight in pretrained.trained:
            weight.copy_(saved.get_tensor(name))


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, in memory of their own: rotation removes the file, and a fault in it must show here."""
    with safe_open(path, "pt") as saved:
        return {name: saved.get_tensor(name).clone() for name in saved.keys()}  # noqa: SIM118


def _copied(found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in found.items()}

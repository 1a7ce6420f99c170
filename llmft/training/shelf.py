"""The checkpoints of a run as they lie on the disk: which there are, which may be used, which are kept."""

import os
import re
from pathlib import Path

from llmft.errors import LlmftError
from llmft.runs import disk, durable, manifest

FORMAT = 2
"""Raised when a checkpoint's files change meaning. 2: the manifest holds step and fingerprints, and a hash of itself."""
NAME = re.compile(r"step-(\d{6,})")

Prints = dict[str, str]
"""What a run depends on, each as a hash: config, data, model. A checkpoint is of use to a run of the same ones alone."""


def mark_best(checkpoints: Path, step: int) -> None:
    """Let checkpoints/best point at a step. It is for people: a run itself goes by Position.best_step."""
    link, name = checkpoints / "best", folder_of(checkpoints, step).name
    if not (link.is_symlink() and os.readlink(link) == name):
        durable.symlink(link, name)


def rotate(checkpoints: Path, keep: int) -> list[str]:
    """Remove all but the `keep` newest checkpoints, by step number, and those that one of these names as its best.

    Return a sentence for each that could not be removed: no reason to stop a run.
    """
    notes = []
    folders = steps_on_disk(checkpoints)
    kept = {step_of(folder) for folder in folders[:keep]} | {best_step_of(folder) for folder in folders[:keep]}
    for folder in folders:
        if step_of(folder) not in kept:
            try:
                durable.remove(folder)
            except OSError as error:
                notes.append(f"checkpoint {folder.name}, which is no longer needed, could not be removed: {error.strerror}")
    return notes


def folder_of(checkpoints: Path, step: int) -> Path:
    """Return the folder of a step's checkpoint."""
    return checkpoints / f"step-{step:06d}"


def step_of(folder: Path) -> int:
    """Return the step of a checkpoint folder."""
    return int(folder.name.removeprefix("step-"))


def best_step_of(folder: Path) -> int | None:
    """Return the step that a checkpoint names as the best so far; None if there was none, or nobody can tell."""
    try:
        return manifest.read(folder)[1]["best_step"]
    except (OSError, ValueError, KeyError):
        return None


def steps_on_disk(checkpoints: Path) -> list[Path]:
    """Return the checkpoint folders, newest first."""
    found = checkpoints.iterdir() if checkpoints.is_dir() else ()
    return sorted((each for each in found if NAME.fullmatch(each.name)), key=step_of, reverse=True)


def problems(folder: Path, prints: Prints) -> list[str]:
    """What is wrong with a checkpoint of the run with these fingerprints; empty if it may be loaded.

    Raises LlmftError for a checkpoint of a format that this version does not know.
    """
    damage = durable.verify(folder)
    if damage:
        return damage
    _, facts = manifest.read(folder)
    if facts.get("format") != FORMAT:
        raise LlmftError(
            f"{folder}: a checkpoint of format {facts.get('format')}; this version of llmft reads format {FORMAT}. Go on with the "
            "version that wrote it (environment.json names it), or start anew with training.resume=never."
        )
    if facts["step"] != step_of(folder):
        damage.append(f"{folder}: it is that of step {facts['step']}")
    differing = sorted(
        name for name in {*prints, *facts["fingerprints"]} if prints.get(name) != facts["fingerprints"].get(name)
    )
    if differing:
        damage.append(f"{folder}: it is another run's, with other {' and '.join(differing)}")
    return damage


def newest(checkpoints: Path, prints: Prints) -> tuple[Path | None, list[str]]:
    """Return the newest checkpoint to go on from, and a sentence for each that was set aside for it.

    Those are the damaged ones, and those whose best checkpoint is: training from an older one makes both again, bit for bit.
    """
    notes: list[str] = []
    for folder in steps_on_disk(checkpoints):
        damage = problems(folder, prints)
        if damage:
            notes.append(f"checkpoint {folder.name} is damaged ({damage[0]}) and was set aside")
        else:
            best = best_step_of(folder)
            if best is None or best == step_of(folder) or not problems(folder_of(checkpoints, best), prints):
                return folder, notes
            name = folder_of(checkpoints, best).name
            notes.append(f"checkpoint {folder.name} was set aside: the best one so far, {name}, is damaged or gone")
        set_aside(folder)
    return None, notes


def set_aside(folder: Path) -> None:
    """Rename a damaged checkpoint, so that it is neither used nor lost."""
    number = 1
    while os.path.lexists(target := folder.with_name(f"{folder.name}.damaged-{number}")):
        number += 1
    with durable.explained(folder):
        disk.rename(folder, target)

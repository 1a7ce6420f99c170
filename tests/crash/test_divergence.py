"""A number that is not finite, wherever it comes from, stops a training before the update, and stays out of checkpoints."""

import json
import math
import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import crash_faults
import crash_lab
import crash_runs
import pytest
import torch
from crash_faults import Fault
from safetensors.torch import load_file

SEED = 20
TRAININGS = {
    f"{model}-{adapter}": ("classification" if model == "bert" else "summarization", model, adapter)
    for model in ("llama", "t5", "bert")
    for adapter in ("none", "lora")
}
KINDS = {"none": ("loss", "gradient", "weight", "optimizer"), "lora": ("loss", "gradient", "weight", "optimizer", "frozen")}
STEPS = 6


def faults(training: str, count: int) -> list[Fault]:
    """Draw faults of all kinds and values for a training."""
    chance = random.Random(f"{SEED} {training}")
    kinds = KINDS[TRAININGS[training][2]]
    values = (math.nan, math.inf, -math.inf)
    first = chance.randrange(60)
    return [
        Fault(kinds[number % len(kinds)], values[number % 3], chance.randint(2, STEPS), chance.randint(0, 1), chance.random())
        for number in range(first, first + count)
    ]


@dataclass(frozen=True)
class Reference:
    """A training's words, and the folder of a run of it that suffered nothing, all its checkpoints kept."""

    words: list[str]
    run: Path


@pytest.fixture(scope="module")
def references(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reference]:
    """References made so far."""
    return {}


def reference(references: dict[str, Reference], training: str, tiny: Path, tmp_path: Path) -> Reference:
    """Return the reference of a training, made where this is the first to ask."""
    if training not in references:
        task, model, adapter = TRAININGS[training]
        crash_runs.write_rows(tmp_path / "data")
        settings = [
            f"adapter={adapter}",
            *(["adapter.r=2"] if adapter == "lora" else []),
            f"training.max_steps={STEPS}",
            "training.save_every=1",
            "training.keep=100",
            "training.eval_every=3",
            "training.micro_tokens=30",
        ]
        words = crash_runs.training(task, tiny / model, tmp_path / "data", *settings)
        code, said = crash_lab.run([*words, "output_dir=reference"], tmp_path)
        assert code == 0, said
        references[training] = Reference(words, tmp_path / "reference")
    return references[training]


def suffer(fault: Fault, known: Reference, folder: Path) -> None:
    """Run a training with a fault, and hold what is left of it against the reference."""
    folder.mkdir()
    code, said = crash_faults.run(
        partial(crash_faults.inject, fault, str(folder / "fault")), [*known.words, f"output_dir={folder / 'run'}"], folder
    )
    assert code == 5, f"{fault}: {said}"
    newest = folder / "run" / "checkpoints" / f"step-{fault.step - 1:06d}"
    (error,) = (line for line in said.splitlines() if line.startswith("error:"))
    assert error.startswith(f"error: step {fault.step}: "), error
    assert f"; the weights were not updated, the last good checkpoint is {newest}. " in error
    (rows,) = (part.split(";")[0] for part in error.split(" on the rows ")[1:])
    assert len(set(rows.split(", ")) & {str(number) for number in range(24)}) == 4, error
    assert crash_runs.saved_steps(folder / "run")[-1] == fault.step - 1
    for name in ("weights", "optimizer", "random"):
        path = Path("checkpoints") / newest.name / f"{name}.safetensors"
        assert (folder / "run" / path).read_bytes() == (known.run / path).read_bytes(), f"{fault}: {path}"
    found = load_file(folder / "fault.safetensors")
    expected = load_file(known.run / "checkpoints" / newest.name / "weights.safetensors")
    if fault.kind == "weight":
        spoilt = json.loads((folder / "fault.json").read_text())
        expected[spoilt["name"]].view(-1)[spoilt["place"]] = fault.value
        assert spoilt["name"] in error
    assert found.keys() == expected.keys()
    assert all(found[name].view(torch.int32).equal(expected[name].view(torch.int32)) for name in expected), f"{fault}"


@pytest.mark.parametrize("training", TRAININGS)
def test_two_faults(training: str, references: dict[str, Reference], tiny: Path, tmp_path: Path) -> None:
    print(f"seed {SEED}")
    known = reference(references, training, tiny, tmp_path)
    for number, fault in enumerate(faults(training, 2)):
        suffer(fault, known, tmp_path / str(number))


@pytest.mark.torture
@pytest.mark.parametrize("training", TRAININGS)
def test_nine_faults(training: str, references: dict[str, Reference], tiny: Path, tmp_path: Path) -> None:
    print(f"seed {SEED}")
    known = reference(references, training, tiny, tmp_path)
    for number, fault in enumerate(faults(training, 9)):
        suffer(fault, known, tmp_path / str(number))

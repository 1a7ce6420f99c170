"""A number that is not finite stops a training before the update, or soon after it where it was spoilt from outside.

Wherever it comes from, it stays out of checkpoints.
"""

import json
import math
import random
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import crash_faults
import crash_lab
import crash_runs
import pytest
import torch
from crash_faults import Fault
from safetensors.torch import load_file, save_file

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
    before = f"; the weights were not updated, the last good checkpoint is {newest}. " in error
    after = f"; the updated weights were thrown away, the last good checkpoint is {newest}. " in error
    assert before or (after and fault.kind in ("weight", "optimizer")), error  # those two may stay out of loss and gradient
    (rows,) = (part.split(";")[0] for part in error.split(" on the rows ")[1:])
    assert len(set(rows.split(", ")) & {str(number) for number in range(24)}) == 4, error
    assert crash_runs.saved_steps(folder / "run")[-1] == fault.step - 1
    for name in ("weights", "optimizer", "random"):
        path = Path("checkpoints") / newest.name / f"{name}.safetensors"
        assert (folder / "run" / path).read_bytes() == (known.run / path).read_bytes(), f"{fault}: {path}"
    if after:
        assert "is not finite after the update on the rows " in error
        return
    found = load_file(folder / "fault.safetensors")
    expected = load_file(known.run / "checkpoints" / newest.name / "weights.safetensors")
    if fault.kind == "weight":
        spoilt = json.loads((folder / "fault.json").read_text())
        expected[spoilt["name"]].view(-1)[spoilt["place"]] = fault.value
        assert f"{spoilt['name']} is not finite" in error
    assert found.keys() == expected.keys()
    assert all(found[name].view(torch.int32).equal(expected[name].view(torch.int32)) for name in expected), f"{fault}"


@pytest.mark.parametrize("training", ["llama-none", "t5-lora", "bert-lora"])
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


def checked(path: Path) -> list[dict]:
    """The training rows of a run's metrics.jsonl."""
    return [row for row in crash_lab.rows(path / "metrics.jsonl") if row["kind"] == "train"]


def test_an_update_that_overflows_is_in_no_checkpoint(tiny: Path, tmp_path: Path) -> None:
    crash_runs.write_rows(tmp_path / "data")
    settings = ["training.save_every=1", "training.eval_every=1", "optimizer.lr=1e39", "schedule.warmup=0", "adapter=none"]
    words = crash_runs.training("summarization", tiny / "llama", tmp_path / "data", *settings, "output_dir=run")
    code, said = crash_lab.run(words, tmp_path)
    assert code == 5, said
    assert "error: step 1: model.embed_tokens.weight is not finite after the update on the rows " in said
    assert "; the updated weights were thrown away, " in said
    assert crash_runs.saved_steps(tmp_path / "run") in ([], [0])
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "diverged"


def test_what_the_optimizer_remembers_overflows(tiny: Path, tmp_path: Path) -> None:
    """The square of a gradient of 1e25 is beyond float32: Adam would divide by infinity, and never move that weight again."""
    crash_runs.write_rows(tmp_path / "data")
    settings = ["training.save_every=1", "optimizer.max_grad_norm=null", "training.max_steps=6"]
    words = crash_runs.training("summarization", tiny / "llama", tmp_path / "data", *settings, "output_dir=run")
    fault = Fault("gradient", 1e25, 4, 0, 0.5)
    code, said = crash_faults.run(partial(crash_faults.inject, fault, str(tmp_path / "fault")), words, tmp_path)
    assert code == 5, said
    assert "error: step 4: " in said
    assert crash_runs.saved_steps(tmp_path / "run")[-1] == 3


def test_a_base_model_that_is_not_finite_is_refused(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny / "llama", tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = math.nan
    save_file(weights, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    crash_runs.write_rows(tmp_path / "data")
    code, said = crash_lab.run(crash_runs.training("summarization", tmp_path / "model", tmp_path / "data"), tmp_path)
    assert code == 4, said
    assert "model.layers.1.mlp.up_proj.weight holds numbers that are not finite" in said


def test_a_spike_is_left_out_and_counted_and_a_stop_changes_nothing(tiny: Path, tmp_path: Path) -> None:
    crash_runs.write_rows(tmp_path / "data")
    settings = ["training.save_every=1", "training.keep=100", "training.skip_spikes=100", "training.eval_every=never"]
    words = crash_runs.training("summarization", tiny / "gpt2", tmp_path / "data", *settings)
    spike = partial(crash_faults.inject, Fault("gradient", 1e9, 20, 0, 0.5), str(tmp_path / "fault"))
    code, said = crash_faults.run(spike, [*words, "output_dir=whole"], tmp_path)
    assert code == 0, said
    assert "steps skipped, their gradients being spikes: 1 (metrics.jsonl tells which)" in said
    assert [row["step"] for row in checked(tmp_path / "whole") if row["skipped"]] == [20]
    assert json.loads((tmp_path / "whole" / "results.json").read_text())["train"]["skipped_steps"] == 1
    before, after, later = (
        (tmp_path / f"whole/checkpoints/step-{step:06d}/weights.safetensors").read_bytes() for step in (19, 20, 21)
    )
    assert before == after != later

    command = crash_faults.start(spike, [*words, "output_dir=cut"], tmp_path, {"LAB_SIGNAL": "15@20+1"})
    assert command.wait() == 75, command.said()
    code, said = crash_lab.run([*words, "output_dir=cut"], tmp_path)
    assert code == 0, said
    assert " from step 22\n" in said  # the signal came in the step after 20 updates, and one without
    for step in range(1, 25):
        for name in ("weights.safetensors", "optimizer.safetensors"):
            path = f"checkpoints/step-{step:06d}/{name}"
            assert (tmp_path / "whole" / path).read_bytes() == (tmp_path / "cut" / path).read_bytes(), path


def test_a_spike_that_is_not_finite_is_never_skipped(tiny: Path, tmp_path: Path) -> None:
    crash_runs.write_rows(tmp_path / "data")
    settings = ["training.save_every=1", "training.skip_spikes=100", "training.eval_every=never"]
    words = crash_runs.training("summarization", tiny / "gpt2", tmp_path / "data", *settings, "output_dir=run")
    spike = partial(crash_faults.inject, Fault("gradient", math.inf, 20, 0, 0.5), str(tmp_path / "fault"))
    code, said = crash_faults.run(spike, words, tmp_path)
    assert code == 5, said
    assert crash_runs.saved_steps(tmp_path / "run")[-1] == 19


def test_a_validation_that_is_not_finite_is_said_and_never_the_best(tiny: Path, tmp_path: Path) -> None:
    crash_runs.write_rows(tmp_path / "data")
    settings = ["training.max_steps=6", "training.eval_every=2", "training.save_every=2", "output_dir=run"]
    words = crash_runs.training("summarization", tiny / "llama", tmp_path / "data", *settings)
    code, said = crash_faults.run(partial(crash_faults.spoil_validation, 4), words, tmp_path)
    assert code == 0, said
    assert "step 4: the validation loss is not finite; these weights cannot be the best ones" in said
    rows = {row["step"]: row["loss"] for row in crash_lab.rows(tmp_path / "run/metrics.jsonl") if row["kind"] == "validation"}
    assert rows[4] is None
    assert None not in (rows[2], rows[6])
    assert (tmp_path / "run/checkpoints/best").resolve().name in ("step-000002", "step-000006")

"""Checkpoints: everything comes back bit for bit, the right ones are kept, a damaged one is stepped around."""

import random

import numpy as np
import pytest
import torch

from llmft.config.schema import Adapter, AdapterKind
from llmft.models.adapter import add_adapter
from llmft.models.load import load_pretrained
from llmft.runs import durable
from llmft.training import checkpoint
from llmft.training.checkpoint import Position
from llmft.training.optimizer import adamw, muon, parameter_groups


def open_model(tiny, lora):
    pretrained = load_pretrained(tiny / "llama", torch.float32, torch.device("cpu"))
    if lora:
        torch.manual_seed(0)
        add_adapter(pretrained, Adapter(name=AdapterKind.lora, r=2))
    return pretrained


def take_step(pretrained, optimizers):
    """A step that depends on every random generator."""
    shift = random.random() + float(np.random.rand())
    for _, weight in pretrained.trained:
        weight.grad = torch.randn(weight.shape) + shift
    for optimizer in optimizers:
        optimizer.step()


def weights(pretrained):
    return {name: weight.detach().clone() for name, weight in pretrained.trained}


@pytest.mark.parametrize("make", [adamw, muon], ids=["adamw", "muon"])
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_a_loaded_run_goes_on_bit_for_bit(tiny, tmp_path, lora, make):
    one = open_model(tiny, lora)
    optimizers = make(parameter_groups(one.trained, 0.1), 0.01, 0.1)
    for _ in range(3):
        take_step(one, optimizers)
    position = Position(step=3, examples=24, tokens=777, seconds=1.25, best=0.1 + 0.2, best_step=2, ended=None)
    folder = checkpoint.save(tmp_path, one, optimizers, position)
    assert folder == tmp_path / "step-000003"
    at_save = weights(one)
    for _ in range(3):
        take_step(one, optimizers)
    expected = weights(one)

    random.seed(9), np.random.seed(9), torch.manual_seed(9)
    two = open_model(tiny, lora)
    fresh = make(parameter_groups(two.trained, 0.1), 0.01, 0.1)
    assert checkpoint.load(folder, two, fresh) == position
    found = weights(two)
    assert found.keys() == at_save.keys()
    assert all(torch.equal(found[name], at_save[name]) for name in at_save)
    for _ in range(3):
        take_step(two, fresh)
    found = weights(two)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert any(not torch.equal(at_save[name], expected[name]) for name in expected)


def test_only_trained_weights_are_written_and_nothing_is_pickled(tiny, tmp_path):
    pretrained = open_model(tiny, lora=True)
    folder = checkpoint.save(
        tmp_path, pretrained, adamw(parameter_groups(pretrained.trained, 0.0), 0.01, 0.0), Position(step=1)
    )
    saved = checkpoint.load_file(folder / "weights.safetensors")
    assert saved.keys() == dict(pretrained.trained).keys()
    assert all("lora_" in name for name in saved)
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}


def save_steps(tiny, tmp_path, steps):
    pretrained = open_model(tiny, lora=True)
    optimizers = adamw(parameter_groups(pretrained.trained, 0.0), 0.01, 0.0)
    for step in steps:
        checkpoint.save(tmp_path, pretrained, optimizers, Position(step=step))
    return pretrained, optimizers


def on_disk(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("."))


def test_rotate_keeps_the_newest_and_the_best(tiny, tmp_path):
    save_steps(tiny, tmp_path, [2, 9, 10, 100, 1000])
    checkpoint.mark_best(tmp_path, tmp_path / "step-000009")
    checkpoint.rotate(tmp_path, 2)
    assert on_disk(tmp_path) == ["best", "step-000009", "step-000100", "step-001000"]
    assert (tmp_path / "best").resolve() == (tmp_path / "step-000009").resolve()
    checkpoint.mark_best(tmp_path, tmp_path / "step-000100")
    checkpoint.rotate(tmp_path, 1)
    assert on_disk(tmp_path) == ["best", "step-000100", "step-001000"]
    assert [checkpoint.step_of(folder) for folder in checkpoint.steps_on_disk(tmp_path)] == [1000, 100]


def test_rotate_without_a_best_one(tiny, tmp_path):
    save_steps(tiny, tmp_path, [1, 2, 3])
    checkpoint.rotate(tmp_path, 2)
    assert on_disk(tmp_path) == ["step-000002", "step-000003"]


@pytest.mark.parametrize("damage", ["changed byte", "cut short", "file gone", "no manifest"])
def test_a_damaged_checkpoint_is_set_aside(tiny, tmp_path, damage):
    save_steps(tiny, tmp_path, [5, 6])
    assert checkpoint.newest(tmp_path) == (tmp_path / "step-000006", [])
    path = tmp_path / "step-000006" / "weights.safetensors"
    data = path.read_bytes()
    if damage == "changed byte":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "cut short":
        path.write_bytes(data[:-1])
    elif damage == "file gone":
        path.unlink()
    else:
        next(path.parent.glob("*manifest*")).unlink()
    found, notes = checkpoint.newest(tmp_path)
    assert found == tmp_path / "step-000005"
    (note,) = notes
    assert note.startswith("checkpoint step-000006 is damaged (")
    assert note.endswith(") and was set aside")
    assert on_disk(tmp_path) == ["step-000005", "step-000006.damaged-1"]


def test_all_damaged_and_none_at_all(tiny, tmp_path):
    assert checkpoint.newest(tmp_path / "nothing") == (None, [])
    save_steps(tiny, tmp_path, [1])
    (tmp_path / "step-000001" / "state.json").write_text("{}")
    found, notes = checkpoint.newest(tmp_path)
    assert (found, len(notes)) == (None, 1)


def test_saving_again_keeps_a_whole_one_and_replaces_a_damaged_one(tiny, tmp_path):
    pretrained, optimizers = save_steps(tiny, tmp_path, [4])
    folder = tmp_path / "step-000004"
    made = (folder / "state.json").stat().st_mtime_ns
    assert checkpoint.save(tmp_path, pretrained, optimizers, Position(step=4)) == folder
    assert (folder / "state.json").stat().st_mtime_ns == made
    (folder / "state.json").write_text("{}")
    checkpoint.save(tmp_path, pretrained, optimizers, Position(step=4))
    assert not durable.verify(folder)
    assert on_disk(tmp_path) == ["step-000004", "step-000004.damaged-1"]


def test_load_weights_alone(tiny, tmp_path):
    one, _ = save_steps(tiny, tmp_path, [1])
    saved = weights(one)
    with torch.no_grad():
        for _, weight in one.trained:
            weight.add_(1)
    checkpoint.load_weights(tmp_path / "step-000001", one)
    assert all(torch.equal(weight, saved[name]) for name, weight in weights(one).items())

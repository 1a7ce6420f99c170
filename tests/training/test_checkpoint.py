"""Checkpoints: everything comes back bit for bit, the right ones are kept, a damaged one is stepped around."""

import os
import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from llmft.config.schema import Adapter, AdapterKind
from llmft.errors import LlmftError
from llmft.models.adapter import add_adapter
from llmft.models.load import load_pretrained
from llmft.runs import durable, manifest
from llmft.training import checkpoint, shelf
from llmft.training.checkpoint import Position
from llmft.training.optimizer import adamw, muon, parameter_groups

PRINTS = {"config": "c0", "data": "d0", "model": "m0"}


def save(checkpoints, pretrained, optimizers, position):
    return checkpoint.write(checkpoints, checkpoint.snapshot(pretrained, optimizers, position), PRINTS)


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
    folder = save(tmp_path, one, optimizers, position)
    assert folder == tmp_path / "step-000003"
    at_save = weights(one)
    for _ in range(3):
        take_step(one, optimizers)
    expected = weights(one)

    random.seed(9), np.random.seed(9), torch.manual_seed(9)
    two = open_model(tiny, lora)
    fresh = make(parameter_groups(two.trained, 0.1), 0.01, 0.1)
    assert checkpoint.load(folder, two, fresh, PRINTS) == position
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
    folder = save(tmp_path, pretrained, adamw(parameter_groups(pretrained.trained, 0.0), 0.01, 0.0), Position(step=1))
    saved = load_file(folder / "weights.safetensors")
    assert saved.keys() == dict(pretrained.trained).keys()
    assert all("lora_" in name for name in saved)
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}


def save_steps(tiny, tmp_path, steps, best=None):
    """`best`: step -> the best step that its checkpoint names."""
    pretrained = open_model(tiny, lora=True)
    optimizers = adamw(parameter_groups(pretrained.trained, 0.0), 0.01, 0.0)
    for step in steps:
        save(tmp_path, pretrained, optimizers, Position(step=step, best_step=(best or {}).get(step)))
    return pretrained, optimizers


def on_disk(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("."))


def test_rotate_keeps_the_newest_by_step_not_by_time_or_name(tiny, tmp_path):
    save_steps(tiny, tmp_path, [1_000_001, 999_999, 2, 1_000_000])
    assert [shelf.step_of(folder) for folder in shelf.steps_on_disk(tmp_path)] == [1_000_001, 1_000_000, 999_999, 2]
    assert shelf.rotate(tmp_path, 2) == []
    assert on_disk(tmp_path) == ["step-1000000", "step-1000001"]


def test_rotate_keeps_what_a_kept_one_names_as_its_best(tiny, tmp_path):
    # Without 5, nobody could go on from 10 if 15 were damaged.
    save_steps(tiny, tmp_path, [5, 10, 15], {5: 5, 10: 5, 15: 15})
    shelf.rotate(tmp_path, 2)
    assert on_disk(tmp_path) == ["step-000005", "step-000010", "step-000015"]
    save_steps(tiny, tmp_path, [20], {20: 15})
    shelf.rotate(tmp_path, 2)
    assert on_disk(tmp_path) == ["step-000015", "step-000020"]
    save_steps(tiny, tmp_path, [25, 30], {25: 15, 30: 15})
    shelf.rotate(tmp_path, 1)
    assert on_disk(tmp_path) == ["step-000015", "step-000030"]


def test_a_failure_while_rotating_is_said_and_loses_nothing(tiny, tmp_path, monkeypatch):
    save_steps(tiny, tmp_path, [1, 2, 3])
    monkeypatch.setenv("LLMFT_FAILPOINT", f"rename:1:EIO:{tmp_path}")
    (note,) = shelf.rotate(tmp_path, 1)
    assert note == "checkpoint step-000002, which is no longer needed, could not be removed: Input/output error"
    assert on_disk(tmp_path) == ["step-000002", "step-000003"]
    monkeypatch.undo()
    assert shelf.rotate(tmp_path, 1) == []
    assert on_disk(tmp_path) == ["step-000003"]


def test_best_is_a_link_that_moves(tiny, tmp_path):
    save_steps(tiny, tmp_path, [1, 2])
    for step in (1, 2, 2):
        shelf.mark_best(tmp_path, step)
        assert (tmp_path / "best").resolve() == tmp_path / f"step-00000{step}"


@pytest.mark.parametrize("damage", ["changed byte", "cut short", "file gone", "no manifest"])
def test_a_damaged_checkpoint_is_set_aside(tiny, tmp_path, damage):
    save_steps(tiny, tmp_path, [5, 6])
    assert shelf.newest(tmp_path, PRINTS) == (tmp_path / "step-000006", [])
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
    found, notes = shelf.newest(tmp_path, PRINTS)
    assert found == tmp_path / "step-000005"
    (note,) = notes
    assert note.startswith("checkpoint step-000006 is damaged (")
    assert note.endswith(") and was set aside")
    assert on_disk(tmp_path) == ["step-000005", "step-000006.damaged-1"]


def test_all_damaged_and_none_at_all(tiny, tmp_path):
    assert shelf.newest(tmp_path / "nothing", PRINTS) == (None, [])
    save_steps(tiny, tmp_path, [1])
    (tmp_path / "step-000001" / "state.json").write_text("{}")
    found, notes = shelf.newest(tmp_path, PRINTS)
    assert (found, len(notes)) == (None, 1)


def test_saving_again_keeps_a_whole_one_and_replaces_a_damaged_one(tiny, tmp_path):
    pretrained, optimizers = save_steps(tiny, tmp_path, [4])
    folder = tmp_path / "step-000004"
    made = (folder / "state.json").stat().st_mtime_ns
    assert save(tmp_path, pretrained, optimizers, Position(step=4)) == folder
    assert (folder / "state.json").stat().st_mtime_ns == made
    (folder / "state.json").write_text("{}")
    save(tmp_path, pretrained, optimizers, Position(step=4))
    assert not durable.verify(folder)
    assert on_disk(tmp_path) == ["step-000004", "step-000004.damaged-1"]


def test_load_the_best_weights_alone(tiny, tmp_path):
    one, _ = save_steps(tiny, tmp_path, [1])
    saved = weights(one)
    with torch.no_grad():
        for _, weight in one.trained:
            weight.add_(1)
    checkpoint.load_best(tmp_path, 1, one, PRINTS)
    assert all(torch.equal(weight, saved[name]) for name, weight in weights(one).items())


def test_a_damaged_best_one_is_not_loaded_and_the_run_goes_back_to_make_it_again(tiny, tmp_path):
    one, _ = save_steps(tiny, tmp_path, [1, 2, 3, 4], {2: 2, 3: 2, 4: 2})
    path = tmp_path / "step-000002" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    before = weights(one)
    with pytest.raises(LlmftError, match=r"^the best checkpoint, step-000002, is damaged \(.+ SHA-256 differs from manifest"):
        checkpoint.load_best(tmp_path, 2, one, PRINTS)
    assert all(torch.equal(weight, before[name]) for name, weight in weights(one).items())
    found, notes = shelf.newest(tmp_path, PRINTS)
    assert found == tmp_path / "step-000001"
    why = "the best one so far, step-000002, is damaged or gone"
    assert notes == [f"checkpoint step-00000{step} was set aside: {why}" for step in (4, 3)]
    with pytest.raises(LlmftError, match=r"step-000002, is damaged \(.+: no manifest\.json\)"):
        checkpoint.load_best(tmp_path, 2, one, PRINTS)


def test_a_checkpoint_in_the_place_of_another_is_noticed(tiny, tmp_path):
    save_steps(tiny, tmp_path, [1, 2, 3])
    (tmp_path / "step-000003").rename(tmp_path / "aside")
    (tmp_path / "step-000002").rename(tmp_path / "step-000003")
    found, (note,) = shelf.newest(tmp_path, PRINTS)
    assert found == tmp_path / "step-000001"
    assert note == f"checkpoint step-000003 is damaged ({tmp_path}/step-000003: it is that of step 2) and was set aside"


def test_a_checkpoint_of_another_run_is_noticed(tiny, tmp_path):
    pretrained, optimizers = save_steps(tiny, tmp_path, [1])
    other = PRINTS | {"data": "d1", "config": "c1"}
    assert shelf.problems(tmp_path / "step-000001", other) == [
        f"{tmp_path}/step-000001: it is another run's, with other config and data"
    ]
    before = weights(pretrained)
    with pytest.raises(LlmftError, match="it is another run's, with other config and data"):
        checkpoint.load(tmp_path / "step-000001", pretrained, optimizers, other)
    assert all(torch.equal(weight, before[name]) for name, weight in weights(pretrained).items())


def test_a_format_of_the_future(tiny, tmp_path):
    with durable.draft(tmp_path / "step-000007", {"format": 9, "step": 7}) as new:
        new.write("weights.safetensors", [b"?"])
    with pytest.raises(LlmftError) as refused:
        shelf.newest(tmp_path, PRINTS)
    assert str(refused.value) == (
        f"{tmp_path}/step-000007: a checkpoint of format 9; this version of llmft reads format 2. Go on with the version that "
        "wrote it (environment.json names it), or start anew with training.resume=never."
    )


def test_weights_of_another_model_are_refused_before_the_first_is_loaded(tiny, tmp_path):
    _, optimizers = save_steps(tiny, tmp_path, [1])
    other = open_model(tiny, lora=False)
    before = weights(other)
    with pytest.raises(LlmftError, match="the weights are not those that the model trains"):
        checkpoint.load(tmp_path / "step-000001", other, optimizers, PRINTS)
    assert all(torch.equal(weight, before[name]) for name, weight in weights(other).items())


def test_a_disk_that_garbles_is_noticed_at_once(tiny, tmp_path, monkeypatch):
    save_steps(tiny, tmp_path, [1])
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data).replace(b"lora_A", b"lora_C")))
    with pytest.raises(LlmftError, match="the disk gave back something else than was written"):
        save_steps(tiny, tmp_path, [2])
    monkeypatch.undo()
    assert on_disk(tmp_path) == ["step-000001", "step-000002.damaged-1"]
    assert shelf.newest(tmp_path, PRINTS) == (tmp_path / "step-000001", [])


def test_the_manifest_says_which_checkpoint_it_is(tiny, tmp_path):
    save_steps(tiny, tmp_path, [7], {7: 3})
    _, facts = manifest.read(tmp_path / "step-000007")
    assert facts == {"format": 2, "step": 7, "best_step": 3, "fingerprints": PRINTS}

"""Checkpoints written at once, or beside the training: the same files, the same order, the same errors."""

import os
import threading

import pytest
import torch
from safetensors.torch import load_file

from llmft.config.schema import Adapter, AdapterKind
from llmft.errors import LlmftError
from llmft.models.adapter import add_adapter
from llmft.models.load import load_pretrained
from llmft.training.checkpoint import Position
from llmft.training.optimizer import adamw, parameter_groups
from llmft.training.saver import Saver

PRINTS = {"config": "c0", "data": "d0", "model": "m0"}


def open_model(tiny):
    pretrained = load_pretrained(tiny / "llama", torch.float32, torch.device("cpu"))
    torch.manual_seed(0)
    add_adapter(pretrained, Adapter(name=AdapterKind.lora, r=2))
    return pretrained, adamw(parameter_groups(pretrained.trained, 0.0), 0.01, 0.0)


def take_step(pretrained, optimizers):
    for _, weight in pretrained.trained:
        weight.grad = torch.ones(weight.shape)
    for optimizer in optimizers:
        optimizer.step()


def weights(pretrained):
    return {name: weight.detach().clone() for name, weight in pretrained.trained}


def on_disk(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize("beside", [False, True])
def test_the_saver_marks_and_rotates(tiny, tmp_path, beside):
    pretrained, optimizers = open_model(tiny)
    saver = Saver(tmp_path, PRINTS, keep=1, beside=beside)
    saved = {}
    for step in (1, 2, 3):
        saved[step] = weights(pretrained)
        assert saver.save(pretrained, optimizers, Position(step=step, best_step=min(step, 2))) == []
        take_step(pretrained, optimizers)  # beside: while it is being written
    assert saver.wait() == []
    assert on_disk(tmp_path) == ["best", "step-000002", "step-000003"]
    assert os.readlink(tmp_path / "best") == "step-000002"
    for step in (2, 3):
        found = load_file(tmp_path / f"step-00000{step}" / "weights.safetensors")
        assert all(torch.equal(found[name], saved[step][name]) for name in saved[step])
    assert all(each.name != "checkpoint" for each in threading.enumerate())


@pytest.mark.parametrize("waits", ["save", "wait"])
def test_what_goes_wrong_beside_the_training_is_raised_at_the_next_wait(tiny, tmp_path, monkeypatch, waits):
    pretrained, optimizers = open_model(tiny)
    saver = Saver(tmp_path, PRINTS, keep=1, beside=True)
    saver.save(pretrained, optimizers, Position(step=1, best_step=1))
    saver.wait()
    monkeypatch.setenv("LLMFT_FAILPOINT", f"write:1:ENOSPC:{tmp_path}")
    saver.save(pretrained, optimizers, Position(step=2, best_step=2))
    with pytest.raises(LlmftError, match="step-000002: cannot be written: No space left on device"):
        saver.wait() if waits == "wait" else saver.save(pretrained, optimizers, Position(step=3))
    assert on_disk(tmp_path) == ["best", "step-000001"]
    assert os.readlink(tmp_path / "best") == "step-000001"
    assert saver.wait() == []


@pytest.mark.parametrize("beside", [False, True])
def test_a_step_is_saved_once_unless_that_failed(tiny, tmp_path, monkeypatch, beside):
    pretrained, optimizers = open_model(tiny)
    saver = Saver(tmp_path, PRINTS, keep=1, beside=beside)

    def save():
        saver.save(pretrained, optimizers, Position(step=1))
        saver.wait()

    monkeypatch.setenv("LLMFT_FAILPOINT", f"fsync:3:EIO:{tmp_path}")
    with pytest.raises(LlmftError, match="Input/output error"):
        save()
    assert on_disk(tmp_path) == []
    save()
    assert on_disk(tmp_path) == ["step-000001"]
    monkeypatch.setenv("LLMFT_FAILPOINT", f"*:1:EIO:{tmp_path}/")
    monkeypatch.setattr("llmft.runs.durable.verify", None)
    save()

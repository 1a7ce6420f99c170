"""The same seed gives the same numbers, and a state put back goes on where it was, through safetensors and JSON."""

import json
import os
import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from llmft.config.schema import Hardware
from llmft.hardware import determinism


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def draw() -> list[float]:
    # gauss and normal keep a second number for the next call, which is part of the state
    return [
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.normal(),
        torch.rand(1).item(),
        torch.randn(1).item(),
    ]


def test_seed():
    determinism.prepare(Hardware(), 7)
    first = draw()
    # What the libraries' own documentation of seeding gives for 7
    assert first[0] == random.Random(7).random()
    assert first[2] == np.random.RandomState(7).rand()
    assert first[4] == torch.rand(1, generator=torch.Generator().manual_seed(7)).item()
    determinism.prepare(Hardware(), 7)
    assert draw() == first
    determinism.prepare(Hardware(), 8)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_what_changes_bits():
    before = {"packages": {"torch": "2.12.0", "optuna": "4"}, "python": "3.11.7", "cpu": "Zen", "gpus": [], "threads": 2}
    assert determinism.changed_bits(before, before | {"cores": 8, "packages": {"torch": "2.12.0", "optuna": "5"}}) == []
    now = before | {"packages": {"torch": "2.13.0", "peft": "0.18"}, "threads": 4}
    assert determinism.changed_bits(before, now) == [
        "torch 2.13.0 (before: 2.12.0)",
        "peft 0.18 (before: none)",
        "threads 4 (before: 2)",
    ]


def test_a_seed_too_large_for_numpy():
    determinism.prepare(Hardware(), 2**32 + 5)
    assert np.random.rand() == np.random.RandomState(5).rand()


def test_settings():
    determinism.prepare(Hardware(threads=1), 0)
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    determinism.prepare(Hardware(deterministic=False), 0)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("drawn_before", [0, 1])
def test_state_goes_through_files(tmp_path, drawn_before):
    determinism.prepare(Hardware(), 3)
    for _ in range(drawn_before):
        draw()
    tensors, values = determinism.rng_state()
    save_file(tensors, tmp_path / "rng.safetensors")
    (tmp_path / "rng.json").write_text(json.dumps(values))
    expected = [draw() for _ in range(700)]  # past the 624 words of the generators' state
    determinism.prepare(Hardware(), 4)
    determinism.set_rng_state(load_file(tmp_path / "rng.safetensors"), json.loads((tmp_path / "rng.json").read_text()))
    assert [draw() for _ in range(700)] == expected


def test_state_is_a_copy():
    tensors, _ = determinism.rng_state()
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    draw()
    assert all(torch.equal(before[name], tensors[name]) for name in before)

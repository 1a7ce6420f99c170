"""Pickled weights: converted on purpose, without running what is in them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from llmft.config.schema import Model
from llmft.errors import ModelError
from llmft.models.convert import WORKER
from llmft.models.load import load_pretrained
from llmft.models.locate import locate

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("alone")


@pytest.mark.parametrize(
    "attempt",
    [
        "os.system('touch $CANARY')",
        "__import__('subprocess').run(['touch', path])",
        "open(path, 'w')",
        "os.posix_spawn('/bin/touch', ['touch', path], os.environ)",
        "__import__('socket').socket().connect(('127.0.0.1', 9))",
        "os.rename('/etc/hostname', path)",
        "__import__('ctypes').CDLL(None).system(b'touch $CANARY')",
    ],
)
def test_what_is_left_after_a_way_round_weights_only(tmp_path, canary, attempt):
    """Should a pickle run code all the same, the process it is in starts no program, and writes nowhere else."""
    code = f"""
import importlib.util, os, pathlib, sys, types
sys.modules["torch"] = types.SimpleNamespace(Tensor=None, strided=None)  # which takes seconds to import, and plays no part
sys.modules["safetensors.torch"] = types.SimpleNamespace(save_file=None)
spec = importlib.util.spec_from_file_location("worker", {str(WORKER)!r})
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
path = {str(canary)!r}
target = pathlib.Path({str(tmp_path / "target")!r})
target.mkdir()
worker.shut_in(target, 1000)
open(target / "allowed", "w").close()
try:
    {attempt}
except PermissionError as error:
    print(error)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.startswith("the file wanted "), found
    assert (tmp_path / "target" / "allowed").exists()


class Gadget:
    """A pickle that calls a function when it is read."""

    def __init__(self, function: Callable[..., object], *arguments: object):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def gadgets(canary: Path) -> dict[str, object]:
    """Pickles that would write the canary, or whatever else than tensors."""
    return {
        "os.system": {"a": Gadget(os.system, f"touch {canary}")},
        "exec": {"a": Gadget(exec, f"open({str(canary)!r}, 'w')")},
        "eval in a list": [Gadget(eval, f"open({str(canary)!r}, 'w')")],
        "no dictionary": [1, 2, 3],
        "numpy": {"a": np.zeros(3, dtype=object)},
    }


GADGETS = list(gadgets(Path("canary")))


@pytest.mark.parametrize("name", [*GADGETS[:1], *(pytest.param(name, marks=pytest.mark.torture) for name in GADGETS[1:])])
def test_a_pickle_runs_no_code(folder, canary, name):
    (folder / "model.safetensors").unlink()
    torch.save(gadgets(canary)[name], folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"the pickled weights cannot be converted: pytorch_model\.bin: it holds "):
        locate(Model(name=str(folder), convert_pickle=True))


def test_pickled_weights_are_converted_on_purpose(tiny, folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights | {"lm_head.weight": weights["transformer.wte.weight"]}, folder / "pytorch_model.bin")
    found = locate(Model(name=str(folder), convert_pickle=True))
    assert found == locate(Model(name=str(folder), convert_pickle=True))  # made once
    loaded = dict(load_pretrained(found, torch.float32, CPU).model.named_parameters())
    assert all(torch.equal(loaded[name], weights[name]) for name in weights if name in loaded)
    assert (
        AutoTokenizer.from_pretrained(found)("fox").input_ids == AutoTokenizer.from_pretrained(tiny / "gpt2")("fox").input_ids
    )

"""Device and precision, by what is asked for and what is there."""

import pytest
import torch

from llmft.config.schema import Device, Hardware, Precision
from llmft.errors import ConfigError
from llmft.hardware import precision
from llmft.hardware.device import choose_device
from llmft.hardware.precision import autocast, choose_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("asked", "present", "expected"),
    [
        (Device.auto, True, CUDA),
        (Device.auto, False, CPU),
        (Device.cpu, True, CPU),
        (Device.cpu, False, CPU),
        (Device.cuda, True, CUDA),
    ],
)
def test_device(monkeypatch, asked, present, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: present)
    assert choose_device(Hardware(device=asked)) == expected


@pytest.mark.parametrize(("built", "why"), [(None, "torch was built without CUDA"), ("13.0", "no GPU was found")])
def test_cuda_that_is_not_there(monkeypatch, built, why):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built)
    with pytest.raises(ConfigError) as refused:
        choose_device(Hardware(device=Device.cuda))
    assert str(refused.value) == f"hardware.device=cuda: {why} (torch {torch.__version__}). Set hardware.device=cpu, or auto."


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"avx512f"}, torch.float32),
        ({"avx512_bf16"}, torch.bfloat16),
        ({"amx_bf16"}, torch.bfloat16),
        ({"bf16"}, torch.bfloat16),
        (set(), torch.float32),
    ],
)
def test_precision_on_a_processor(monkeypatch, flags, expected):
    monkeypatch.setattr(precision, "cpu_flags", lambda: flags)
    assert choose_precision(Hardware(), CPU) is expected
    assert choose_precision(Hardware(precision=Precision.fp32), CPU) is torch.float32
    assert choose_precision(Hardware(precision=Precision.bf16), CPU) is torch.bfloat16


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16), ((12, 0), torch.bfloat16)],
)
def test_precision_on_a_gpu(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision(Hardware(), CUDA) is expected


def test_autocast():
    x = torch.ones(2, 2)
    with autocast(CPU, torch.bfloat16):
        assert (x @ x).dtype is torch.bfloat16
    with autocast(CPU, torch.float32):
        assert (x @ x).dtype is torch.float32

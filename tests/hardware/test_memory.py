"""Memory by device; the GPU's numbers come from torch."""

import pytest
import torch

from llmft.errors import DoesNotFit, LlmftError
from llmft.hardware import limits, memory

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_processor():
    current, peak, available = memory.current_bytes(CPU), memory.peak_bytes(CPU), memory.available_bytes(CPU)
    assert 10_000_000 < current <= peak
    assert 0 < available < limits.total_memory_bytes()


def test_a_system_that_does_not_say(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "PROC", tmp_path)
    with pytest.raises(LlmftError, match=r"no /proc/meminfo\)\. Set training\.micro_tokens\."):
        memory.available_bytes(CPU)


def test_gpu_counts_what_torch_keeps_for_reuse(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 70)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 30)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 60)
    assert (memory.available_bytes(CUDA), memory.current_bytes(CUDA), memory.peak_bytes(CUDA)) == (140, 30, 60)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_refused_memory_is_explained(error):
    assert memory.is_out_of_memory(error)
    expected = r"^out of memory: .+\. Set generation\.batch_size or training\.micro_tokens lower, "
    with pytest.raises(DoesNotFit, match=expected), memory.explained():
        raise error


def test_as_this_build_of_torch_says_it():
    with pytest.raises(DoesNotFit), memory.explained():
        torch.empty(1 << 60)


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory")])
def test_other_errors_stay_what_they_are(error):
    assert not memory.is_out_of_memory(error)
    with pytest.raises(type(error)), memory.explained():
        raise error

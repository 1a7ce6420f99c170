"""Memory of the device a run computes on, in bytes."""

import torch

from llmft.errors import LlmftError
from llmft.hardware import limits


def available_bytes(device: torch.device) -> int:
    """What can still be allocated: on a GPU with what torch keeps for reuse, else what machine and cgroup leave."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    available = limits.available_memory_bytes()
    if available is None:
        raise LlmftError("The system does not say how much memory is free (no /proc/meminfo). Set training.micro_tokens.")
    return available


def current_bytes(device: torch.device) -> int:
    """What is in use now: tensors on a GPU, else all of the process."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else limits.resident_bytes()


def peak_bytes(device: torch.device) -> int:
    """The most that was in use so far, counted as `current_bytes`."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else limits.peak_resident_bytes()

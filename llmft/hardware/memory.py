"""Memory of the device a run computes on, in bytes."""

import gc
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from llmft.errors import DoesNotFit, LlmftError
from llmft.hardware import arena, heap, limits

REFUSED = ("out of memory", "can't allocate memory", "cannot allocate memory", "alloc_failed", "bad_alloc")
"""What torch, CUDA's libraries and C++ say, in lower case, where memory was refused."""


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


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory was refused, by a GPU or by the system."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error).lower() for said in REFUSED)


def release(device: torch.device) -> None:
    """Give back what a failed pass has left behind."""
    gc.collect()
    arena.drop_free()
    heap.trim()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def refused_beyond(device: torch.device, room: int) -> AbstractContextManager[None]:
    """A block in which the system refuses memory beyond `room` more bytes instead of killing; a GPU refuses by itself."""
    return nullcontext() if device.type == "cuda" else limits.refused_beyond(room)


@contextmanager
def explained() -> Iterator[None]:
    """Turn memory that was refused anywhere in the block into DoesNotFit."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DoesNotFit(
            f"out of memory: {str(error).splitlines()[0] if str(error) else type(error).__name__}. Set generation.batch_size or "
            "training.micro_tokens lower, task.max_source_tokens smaller, model.gradient_checkpointing=true or adapter=lora, or "
            "take a smaller model."
        ) from error

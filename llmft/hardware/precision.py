"""Number format of the arithmetic."""

import contextlib

import torch

from llmft.config.schema import Hardware, Precision
from llmft.hardware.limits import cpu_flags


def choose_precision(hardware: Hardware, device: torch.device) -> torch.dtype:
    """torch.float32 or torch.bfloat16; auto: bfloat16 where the hardware computes in it, not where it is emulated."""
    if hardware.precision is Precision.fp32:
        return torch.float32
    if hardware.precision is Precision.bf16 or _computes_bf16(device):
        return torch.bfloat16
    return torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[object]:
    """A block whose matrix products run in `dtype`; does nothing for float32."""
    return contextlib.nullcontext() if dtype is torch.float32 else torch.autocast(device.type, dtype)


def _computes_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    return bool(cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"})  # bf16: as ARM names it

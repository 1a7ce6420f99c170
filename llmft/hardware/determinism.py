"""The same bits every time: seeds, threads, kernels, and the state of every random number generator.

States are tensors and JSON values, never a pickle, so that a checkpoint can be read without running what is in it.
"""

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmft.config.schema import Hardware

ROUNDING = ("llmft", "torch", "transformers", "peft", "tokenizers", "numpy", "triton", "bitsandbytes", "accelerate")
"""Packages that decide in which order numbers are added up, or what a model reads: another version, other last digits."""


def prepare(hardware: Hardware, seed: int) -> None:
    """Set threads, seed the generators of python, numpy and torch, and allow only deterministic kernels if asked to.

    Call it before the first CUDA call: cuBLAS reads its workspace setting once.
    """
    if hardware.threads is not None:
        torch.set_num_threads(hardware.threads)
    if hardware.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(hardware.deterministic)
    torch.backends.cudnn.deterministic = hardware.deterministic
    torch.backends.cudnn.benchmark = not hardware.deterministic
    # Filling every new tensor helps to find reads before the first write, and costs a pass over memory each time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)  # CUDA too


def num_threads(hardware: Hardware) -> int:
    """Threads that a run computes with on the CPU: sums are split among them, and rounded by their number."""
    return hardware.threads or torch.get_num_threads()


def changed_bits(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two environments, as environment.json holds them, so that a run's last digits may, too."""
    kinds = [(name, before["packages"].get(name), now["packages"].get(name)) for name in ROUNDING]
    kinds += [(name, before.get(name), now.get(name)) for name in ("python", "cpu", "gpus", "threads")]
    return [f"{name} {now or 'none'} (before: {was or 'none'})" for name, was, now in kinds if was != now]


def rng_state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State of the generators of python, numpy (the global one), torch and each GPU, as CPU tensors and JSON values."""
    version, words, python_gauss = random.getstate()
    kind, keys, position, has_gauss, numpy_gauss = np.random.get_state()
    assert (version, kind) == (3, "MT19937")
    tensors = {
        "python": torch.tensor(words, dtype=torch.int64),
        "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        tensors |= {f"cuda.{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    values = {
        "python_gauss": python_gauss,
        "numpy_position": position,
        "numpy_has_gauss": has_gauss,
        "numpy_gauss": numpy_gauss,
    }
    return tensors, values


def set_rng_state(tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Put back what `rng_state` returned; the state of a GPU that is not here is left out."""
    random.setstate((3, tuple(tensors["python"].tolist()), values["python_gauss"]))
    keys = tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, values["numpy_position"], values["numpy_has_gauss"], values["numpy_gauss"]))
    torch.set_rng_state(tensors["torch"])
    for index in range(torch.cuda.device_count()):
        if f"cuda.{index}" in tensors:
            torch.cuda.set_rng_state(tensors[f"cuda.{index}"], index)


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Seed the generators for the block and put their states back after it: evaluation never moves training's chance."""
    before = rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        set_rng_state(*before)

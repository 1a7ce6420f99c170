"""The C library's heap, which tensors share with Python's objects.

glibc takes a block of memory from the system and gives it back alone, or, below a size that grows with what is freed, keeps it in
its heap for what comes next. What is large and short-lived while a run starts leaves holes there that steps do not fill: with
them, a LoRA training of SmolLM2-135M took 75 MiB more. Steps, on the other hand, need the same again and again: fresh pages for
each tensor took a twenty-fifth to a fifteenth of a training of all weights and a tenth of the time of writing texts. So the size is
small at the start, and later nothing is given back where memory is plentiful. Nothing is changed where the user has set a size
(`MALLOC_...`), or where the C library is another one.
"""

import ctypes
import os
import sys

from llmft.hardware import limits

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Numbers of mallopt's parameters (glibc's malloc.h)."""
SMALL = 128 << 10
"""Bytes of a block that is given back alone: what glibc begins with, and does not stay at by itself."""
MIDDLE = 8 << 20
"""The same while a run repeats its steps and memory is scarce: blocks that are kept leave holes of their size. A training of 6 million
weights ran out of 310 MB with what glibc grows to by itself, 32 MiB, and goes through in 276 with this."""
LARGE = 1 << 30
"""The same where memory is plentiful: more than a tensor has."""
MOST = (1 << 31) - 1
"""What mallopt takes."""
OLD_MOST = 32 << 20
"""What older versions of glibc take for the size of a block; they refuse more."""


def begin() -> None:
    """Give large blocks back alone from now on, while a run starts."""
    bound(SMALL)


def settle(needed: int = 0) -> None:
    """Give back what lies free, and keep blocks for the next tensors from now on: what is repeated begins.

    needed: bytes that it will take beside what the process has.
    """
    bound(LARGE if plentiful(needed) else MIDDLE)
    trim()


def plentiful(needed: int) -> bool:
    """Tell whether as much memory as the process will have is free besides: more than what holes were seen to take."""
    available = limits.available_memory_bytes()
    return available is not None and available > limits.resident_bytes() + 2 * needed


def bound(size: int) -> None:
    """Set from how many bytes on blocks come from the system, and that twice as many may lie free at the heap's end."""
    if (libc := glibc()) and not any(name.startswith("MALLOC_") for name in os.environ):
        if not libc.mallopt(MMAP_THRESHOLD, size):
            libc.mallopt(MMAP_THRESHOLD, OLD_MOST)
        libc.mallopt(TRIM_THRESHOLD, min(2 * size, MOST))


def trim() -> None:
    """Give back to the system what lies free."""
    if libc := glibc():
        libc.malloc_trim(0)


def glibc() -> ctypes.CDLL | None:
    """Return the C library if it is glibc."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None

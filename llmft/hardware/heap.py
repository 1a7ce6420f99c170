"""The C library's heap, which tensors share with Python's objects.

glibc takes a block of memory from the system and gives it back alone, or, below a size that grows with what is freed, keeps it in
its heap for what comes next. What is large and short-lived while a run starts leaves holes there that steps do not fill: with
them, a LoRA training of SmolLM2-135M took 75 MiB more. Steps, on the other hand, need the same again and again: with fresh pages for
each tensor, texts were written a tenth slower. So the size is small at the start and large later. Nothing is changed where the
user has set one (`MALLOC_...`), or where the C library is another one.
"""

import ctypes
import os
import sys

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Numbers of mallopt's parameters (glibc's malloc.h)."""
SMALL = 128 << 10
"""Bytes of a block that is given back alone: what glibc begins with, and does not stay at by itself."""
LARGE = 8 << 20
"""The same while a run repeats its steps. glibc grows to 32 MiB by itself, but blocks of that size leave holes of that size:
a training of 6 million weights ran out of 310 MB that way, and goes through in 276."""


def begin() -> None:
    """Give large blocks back alone from now on, while a run starts."""
    bound(SMALL)


def settle() -> None:
    """Give back what lies free, and keep large blocks for the next tensors from now on: what is repeated begins."""
    bound(LARGE)
    if libc := glibc():
        libc.malloc_trim(0)


def bound(size: int) -> None:
    """Set from how many bytes on blocks come from the system, and that twice as many may lie free at the heap's end."""
    if (libc := glibc()) and not any(name.startswith("MALLOC_") for name in os.environ):
        libc.mallopt(MMAP_THRESHOLD, size)
        libc.mallopt(TRIM_THRESHOLD, 2 * size)


def glibc() -> ctypes.CDLL | None:
    """Return the C library if it is glibc."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None

"""Imports that take seconds, with Python's garbage collector out of their way."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected(module: str) -> Iterator[None]:
    """A block that imports `module` and what it needs, whose objects the collector never looks at, then or later.

    It would look at all of them again and again and free none, which is a sixth of the time that torch and transformers take to
    import. Does nothing where `module` was imported before: what a sweep's earlier jobs left behind is to be collected.
    """
    if module in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()

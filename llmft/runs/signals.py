"""Being asked to stop: the first signal ends the run in order, the second at once.

Outside `deferred` the first signal raises errors.Stopped where the program stands. Inside, it is noted, and `check`
raises at a place where the state can be saved. All of this belongs to the main thread, where Python runs handlers.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

from llmft.errors import Stopped

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
ECHO_S = 0.2
"""The same signal within this time is the same request: terminals and process managers send to group and process."""

_first: tuple[int, float] | None = None  # number and time of the first signal
_noted: int | None = None  # a signal that `check` has still to raise
_depth = 0  # how many deferred blocks are open


def install() -> None:
    """Take over the signals, with none received so far. Does nothing outside the main thread."""
    global _first, _noted
    if threading.current_thread() is not threading.main_thread():
        return
    _first = _noted = None
    for number in SIGNALS:
        if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue  # nohup
        signal.signal(number, _receive)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Put off signals to the next `check`, or to the end of the outermost block unless an exception is in flight."""
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
    if _depth == 0:
        check()


def check() -> None:
    """Raise Stopped if a signal has been noted."""
    global _noted
    if _noted is not None:
        number, _noted = _noted, None
        raise Stopped(number)


def _receive(number: int, frame: FrameType | None) -> None:
    global _first, _noted
    now = time.monotonic()
    if _first is not None:
        if number == _first[0] and now - _first[1] < ECHO_S:
            return
        os._exit(128 + number)
    _first = (number, now)
    if _depth == 0:
        raise Stopped(number)
    _noted = number
    with contextlib.suppress(OSError):
        # Not print: the signal may have come in the middle of one, and a stream does not let itself be entered twice.
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"stopping after this step; a second signal stops at once\n")

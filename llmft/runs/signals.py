"""Being asked to stop: the first signal ends the run in order, the second at once.

Outside `deferred` the first signal raises errors.Stopped where the program stands. Inside, it is noted, and `check`
raises at a place where the state can be saved. Python runs its handlers in the main thread between two bytecodes, so a
backward pass of ten seconds delays them by as much and merges two signals into one. A second thread therefore reads the
signals from a pipe as they come: it tells the user that the first was seen, and ends the process at the second.
Once the work is done and recorded (`close`) there is nothing left to stop: the first is then only noted.
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

_first: tuple[int, float] | None = None  # number and time of the first signal, as the watching thread saw it
_stopping = False  # whether the handler has run
_noted: int | None = None  # a signal that `check` has still to raise
_depth = 0  # how many deferred blocks are open
_closed = False  # whether there is nothing left to stop
_watching = False
_unraisable = sys.unraisablehook  # what was there before `install`


def install() -> None:
    """Take over the signals, with none received so far. Does nothing outside the main thread. Raises Stopped."""
    global _first, _stopping, _noted, _closed, _watching, _unraisable
    if threading.current_thread() is not threading.main_thread():
        return
    _first, _stopping, _noted, _closed = None, False, None, False
    for number in SIGNALS:
        if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue  # nohup
        signal.signal(number, _receive)
    with deferred():
        if not _watching:
            _watching = True
            receiver, sender = os.pipe()
            os.set_blocking(sender, False)
            signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
            threading.Thread(target=_watch, args=(receiver,), name="signals", daemon=True).start()
            os.register_at_fork(before=_hold, after_in_parent=_go_on, after_in_child=_let_go)
        if sys.unraisablehook is not _keep:
            _unraisable, sys.unraisablehook = sys.unraisablehook, _keep


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Put off signals to the next `check`, or to the end of the outermost block unless an exception is in flight."""
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
    if _depth == 0 and not _closed:
        check()


def close() -> None:
    """Let the first signal change nothing from here on: the work is done, and how it ended is being recorded."""
    global _closed
    _closed = True


def reopen() -> None:
    """Undo `close` for work that follows, a sweep's next job. Raises Stopped if a signal came meanwhile."""
    global _closed
    _closed = False
    if _depth == 0:
        check()


def received() -> int | None:
    """The first signal since `install`, as soon as it has come; None as long as there is none."""
    return _first[0] if _first else None


def noted() -> int | None:
    """The signal that the next `check` raises, None if there is none."""
    return _noted


def check() -> None:
    """Raise Stopped if a signal has been noted."""
    global _noted
    if _noted is not None:
        number, _noted = _noted, None
        raise Stopped(number)


def _receive(number: int, frame: FrameType | None) -> None:
    """The handler: acts on the first signal only, `_watch` on the second."""
    global _stopping, _noted
    if _stopping:
        return
    _stopping = True
    if _depth == 0 and not _closed:
        raise Stopped(number)
    _noted = number


def _keep(dropped: "sys.UnraisableHookArgs") -> None:
    """Python drops what is raised in a __del__ or a callback from C. A Stopped is kept for the next `check`."""
    global _noted
    if isinstance(dropped.exc_value, Stopped):
        _noted = dropped.exc_value.args[0]
    else:
        _unraisable(dropped)


def _watch(receiver: int) -> None:
    global _first
    while data := os.read(receiver, 1):
        number, now = data[0], time.monotonic()
        if number not in SIGNALS:
            continue
        if _first is None:
            _first = (number, now)
            if _depth > 0:
                with contextlib.suppress(OSError):  # stderr may be gone with the terminal
                    os.write(2, b"stopping after this step; a second signal stops at once\n")
        elif number != _first[0] or now - _first[1] >= ECHO_S:
            os._exit(128 + number)


def _hold() -> None:
    """Keep signals waiting while a process forks: one sent to the child before `_let_go` would count as sent to us."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _go_on() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _let_go() -> None:
    """In a forked child (a data loader's worker): signals sent to it are not for us, and it dies of them as usual."""
    global _watching
    _watching = False
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        if signal.getsignal(number) is _receive:
            signal.signal(number, signal.SIG_DFL)
    _go_on()

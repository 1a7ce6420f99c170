"""Jobs of a sweep in other processes (hydra/launcher=joblib): stopped with the sweep, saved first, never left behind.

A launcher that is interrupted kills its processes. So the sweep's own process lets it go on, and writes the signal to a
file, where the others look; each then stops its job as if the signal had been sent to it, and takes up no further one.
A process whose sweep is gone (killed, or ended by a second signal) does the same by itself.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from llmft.errors import Stopped
from llmft.runs import durable, signals

FILE = ".stop"
LOOK_EVERY_S = 0.2

_followed: set[Path] = set()  # the sweeps that a thread of this process watches
_over: dict[Path, int] = {}  # those that have ended, and the signal that did it
_at_work: Path | None = None  # the sweep whose job is under way here


@contextlib.contextmanager
def stopped_together(sweep_dir: Path) -> Iterator[None]:
    """In the sweep's process: pass a signal on, and raise Stopped once the launcher has let all jobs end."""
    ended = threading.Event()

    def pass_on() -> None:
        while not ended.wait(LOOK_EVERY_S):
            if (number := signals.noted()) is not None:
                durable.write_text(sweep_dir / FILE, str(int(number)))
                return

    with signals.deferred():
        (sweep_dir / FILE).unlink(missing_ok=True)  # of a sweep that was killed meanwhile
        thread = threading.Thread(target=pass_on, daemon=True)
        thread.start()
        try:
            yield
        except Exception:
            signals.check()  # a process that the signal ended before it could listen: that is all that went wrong
            raise
        finally:
            ended.set()
            thread.join()
            number = _sent(sweep_dir)
            (sweep_dir / FILE).unlink(missing_ok=True)
    if number is not None:  # sent to one of the processes only
        raise Stopped(number)


def follow(sweep_dir: Path, job: Callable[[], float | None]) -> float | None:
    """In a launcher's process: run a job that is stopped with the sweep; None if it was, or if the sweep has ended already."""
    global _at_work
    if sweep_dir not in _followed:
        _followed.add(sweep_dir)
        signals.install()
        threading.Thread(target=_watch, args=(sweep_dir, os.getppid()), name="sweep", daemon=True).start()
    _at_work = sweep_dir
    try:
        try:
            signals.reopen()
            return job() if sweep_dir not in _over and _sent(sweep_dir) is None else None
        finally:
            signals.close()
    except Stopped as stopped:
        _over[sweep_dir] = stopped.args[0]
        durable.write_text(sweep_dir / FILE, str(int(stopped.args[0])))
        return None
    finally:
        _at_work = None


def _watch(sweep_dir: Path, parent: int) -> None:
    """Look for the sweep's end, and end with it."""
    while True:
        time.sleep(LOOK_EVERY_S)
        orphaned = os.getppid() != parent
        if sweep_dir not in _over and (number := signal.SIGTERM if orphaned else _sent(sweep_dir)) is not None:
            _over[sweep_dir] = number
            if _at_work == sweep_dir and signals.received() is None:  # a terminal's Ctrl-C comes to all processes
                os.kill(os.getpid(), number)
        if orphaned and not _at_work:
            os._exit(75)


def _sent(sweep_dir: Path) -> int | None:
    try:
        return int((sweep_dir / FILE).read_text())
    except (FileNotFoundError, ValueError):
        return None

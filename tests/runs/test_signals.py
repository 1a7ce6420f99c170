"""Real signals to real processes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from llmft.errors import Stopped
from llmft.runs import signals

HEAD = """
import os, signal, sys, time
from llmft.errors import Stopped
from llmft.runs import signals
signals.install()
def ready(): print("ready", flush=True)
def wait(seconds):
    # in short sleeps: a signal in the last bytecodes before a sleep is not seen until the sleep ends
    for _ in range(round(seconds * 100)):
        time.sleep(0.01)
"""
LOOP = (
    HEAD
    + """
try:
    with signals.deferred():
        ready()
        for step in range(10_000):
            time.sleep(0.01)
            signals.check()
except Stopped as stopped:
    print("saved", stopped, flush=True)
    time.sleep(float(sys.argv[1]))
    sys.exit(stopped.exit_code)
"""
)
ANYWHERE = (
    HEAD
    + """
try:
    ready()
    wait(60)
except Stopped as stopped:
    sys.exit(stopped.exit_code)
"""
)
# One call into C for many seconds, the interpreter lock released: a backward pass, as far as signals see.
BUSY = (
    HEAD
    + """
import hashlib
with signals.deferred():
    ready()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 100_000_000)
"""
)


class Child:
    """A process that has said it is ready."""

    def __init__(self, code: str, *arguments: str, **options):
        command = [sys.executable, "-c", code, *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def send(self, number: int, after: float = 0.0) -> None:
        time.sleep(after)
        self.process.send_signal(number)

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGUSR1, 75), (signal.SIGUSR2, 75), (signal.SIGHUP, 75)],
)
def test_the_first_signal_ends_in_order(number, code):
    child = Child(LOOP, "0")
    child.send(number)
    line = "stopping after this step; a second signal stops at once\n"
    assert child.end() == (code, f"saved {number.name}\n", line)


def test_outside_deferred_it_raises_where_it_stands():
    child = Child(ANYWHERE)
    child.send(signal.SIGTERM)
    assert child.end() == (75, "", "")


def test_the_second_signal_ends_at_once():
    child = Child(LOOP, "30")
    child.send(signal.SIGINT)
    child.send(signal.SIGINT, after=0.4)
    start = time.monotonic()
    assert child.end()[0] == 128 + signal.SIGINT
    assert time.monotonic() - start < 5


def test_another_signal_is_a_second_at_any_time():
    child = Child(LOOP, "30")
    child.send(signal.SIGINT)
    child.send(signal.SIGTERM, after=0.05)
    assert child.end()[0] == 128 + signal.SIGTERM


def test_an_echo_is_not_a_second():
    child = Child(LOOP, "0.5")
    child.send(signal.SIGTERM)
    child.send(signal.SIGTERM, after=0.05)
    assert child.end()[:2] == (75, "saved SIGTERM\n")


def test_the_second_signal_ends_a_long_call_too():
    child = Child(BUSY)
    child.send(signal.SIGINT)
    child.send(signal.SIGINT, after=0.4)
    start = time.monotonic()
    assert child.end() == (130, "", "stopping after this step; a second signal stops at once\n")
    assert time.monotonic() - start < 5


def test_nohup_is_respected():
    child = Child(LOOP, "0", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    child.send(signal.SIGHUP)
    child.send(signal.SIGTERM, after=0.1)
    assert child.end()[:2] == (75, "saved SIGTERM\n")


def test_signals_of_a_forked_child_are_not_ours():
    code = (
        HEAD
        + """
child = os.fork()
if child == 0:
    time.sleep(30)
    os._exit(0)
os.kill(child, signal.SIGTERM)
_, status = os.waitpid(child, 0)
ready()
time.sleep(0.1)
signals.check()
sys.exit(os.WTERMSIG(status))
"""
    )
    assert Child(code).end() == (signal.SIGTERM, "", "")


@pytest.fixture
def installed():
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    signals.install()
    yield
    time.sleep(0.05)  # the watching thread has read by now, before another test begins
    signals._let_go()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("installed")
def test_the_outermost_block_raises_at_its_end():
    steps = []

    def work() -> None:
        with signals.deferred():
            with signals.deferred():
                os.kill(os.getpid(), signal.SIGUSR1)
                steps.append("inner")
            steps.append("outer")

    with pytest.raises(Stopped, match="SIGUSR1"):
        work()
    assert steps == ["inner", "outer"]
    signals.check()  # raised once, not again


@pytest.mark.usefixtures("installed")
def test_an_exception_in_flight_is_not_replaced():
    def work() -> None:
        with signals.deferred():
            os.kill(os.getpid(), signal.SIGUSR1)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        work()
    with pytest.raises(Stopped):
        signals.check()


@pytest.mark.usefixtures("installed")
def test_closed_and_opened_again():
    signals.close()
    os.kill(os.getpid(), signal.SIGUSR2)  # nothing is left to stop
    with signals.deferred():
        pass
    with pytest.raises(Stopped, match="SIGUSR2"):
        signals.reopen()
    signals.reopen()
    until = time.monotonic() + 5
    while signals.received() is None and time.monotonic() < until:
        time.sleep(0.01)  # the watching thread tells
    assert signals.received() == signal.SIGUSR2


@pytest.mark.usefixtures("installed")
def test_a_signal_that_comes_first_stops_the_next_work_too():
    signals.close()
    signals.reopen()
    with pytest.raises(Stopped, match="SIGHUP"):
        os.kill(os.getpid(), signal.SIGHUP)


def test_the_second_signal_ends_a_closed_process():
    closed = HEAD + "signals.close()\nready()\ntime.sleep(30)\n"
    child = Child(closed)
    child.send(signal.SIGTERM)
    child.send(signal.SIGTERM, after=0.4)
    assert child.end() == (128 + signal.SIGTERM, "", "")


def test_a_signal_that_hits_a_finaliser_is_not_lost():
    """Python drops exceptions there; the process has to end at the next check all the same."""
    finaliser = (
        HEAD
        + """
class Slow:
    def __del__(self):
        ready()
        wait(60)
try:
    slow = Slow()
    del slow
    print("went on", flush=True)
    with signals.deferred():
        pass
    print("lost")
except Stopped as stopped:
    sys.exit(stopped.exit_code)
"""
    )
    child = Child(finaliser)
    child.send(signal.SIGTERM)
    code, out, err = child.end()
    assert (code, out) == (75, "went on\n")
    assert "Exception ignored" not in err

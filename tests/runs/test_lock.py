"""One writer, whoever dies; the name of the one who has it."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from llmft.errors import LlmftError, RunInUse
from llmft.runs.lock import Lock, holder

HOLD = """
import sys, time; from pathlib import Path; from llmft.runs.lock import Lock
lock = Lock(Path(sys.argv[1])); lock.acquire(); print("held", flush=True); time.sleep(60)
"""
RACE = """
import sys; from pathlib import Path; from llmft.errors import RunInUse; from llmft.runs.lock import Lock
print("ready", flush=True); sys.stdin.readline()
try: Lock(Path(sys.argv[1])).acquire()
except RunInUse: print("lost", flush=True)
else: print("won", flush=True)
sys.stdin.readline()
"""


def start(code: str, folder) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout.readline() in ("held\n", "ready\n")
    return process


def test_the_holder_is_named_until_it_is_killed(tmp_path):
    with start(HOLD, tmp_path) as child:
        who = holder(tmp_path)
        assert who is not None
        assert (who["pid"], who["host"]) == (child.pid, socket.gethostname())
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", who["start"])
        expected = f"{tmp_path} is in use by process {child.pid} on {who['host']} since {who['start']}. "
        with pytest.raises(RunInUse, match=re.escape(expected)):
            Lock(tmp_path).acquire()
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert holder(tmp_path) is None
        lock = Lock(tmp_path)
        lock.acquire()
        assert holder(tmp_path)["pid"] == os.getpid()
        lock.release()


def test_eight_at_once(tmp_path):
    children = [start(RACE, tmp_path) for _ in range(8)]
    for child in children:
        child.stdin.write("go\n")
    said = [child.stdout.readline().strip() for child in children]
    for child in children:
        child.communicate("end\n", timeout=20)
    assert sorted(said) == ["lost"] * 7 + ["won"]


def test_release_and_take_again(tmp_path):
    lock = Lock(tmp_path)
    assert holder(tmp_path) is None
    for _ in range(2):
        lock.acquire()
        assert holder(tmp_path) is not None
        lock.release()
        lock.release()
        assert holder(tmp_path) is None


def test_looking_does_not_get_in_the_way(tmp_path):
    lock, stop = Lock(tmp_path), threading.Event()

    def look() -> None:
        while not stop.is_set():
            holder(tmp_path)

    watchers = [threading.Thread(target=look) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(20):
            lock.acquire()
            lock.release()
    finally:
        stop.set()
        for watcher in watchers:
            watcher.join()


def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    fork = HOLD.replace(
        "print(", "import os\nif os.fork() == 0: print(os.getpid(), flush=True); time.sleep(60)\ntime.sleep(0.2); print("
    )
    command = [sys.executable, "-c", fork, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        try:
            assert holder(tmp_path)["pid"] == parent.pid
            parent.kill()
            parent.wait()
            os.kill(child, 0)  # it lives on
            assert holder(tmp_path) is None
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_folder_made_anew_is_locked_anew(tmp_path):
    first = Lock(tmp_path)
    first.acquire()
    (tmp_path / ".lock").unlink()
    second = Lock(tmp_path)
    second.acquire()
    assert holder(tmp_path) is not None
    first.release()
    second.release()


def test_a_holder_not_yet_written(tmp_path):
    lock = Lock(tmp_path)
    lock.acquire()
    (tmp_path / ".lock").write_text("")
    start = time.monotonic()
    with pytest.raises(RunInUse, match="process unknown on an unknown host"):
        Lock(tmp_path).acquire()
    assert time.monotonic() - start < 2
    lock.release()


def test_no_locks_here(tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(LlmftError, match=r"\.lock: this file system has no locks .*Put output_root on another one\."):
        Lock(tmp_path).acquire()

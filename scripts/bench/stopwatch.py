"""Watches one command from outside, in the same way whoever it is: when lines appear in its file, and what it takes.

A line is written by llmft (metrics.jsonl) and by the peers after each optimizer step, and flushed. Nothing is put into the
watched process.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TICK = 0.02
"""Seconds between looks at the file: how exact a step's end is."""
MEMORY_TICKS = 10
"""Looks at the file between two at the memory of all processes."""


@dataclass
class Watched:
    """What was seen. Times in seconds: `at` from the start of the command to each line, `cpu` of all its processes, `cpu_at` of
    them up to each line.

    peak_bytes: of the largest process as the kernel keeps it, or of all together if at some look that was more.
    foreign_cpu: what others took meanwhile.
    """

    exit: int
    wall: float
    cpu: float
    foreign_cpu: float
    peak_bytes: int
    at: list[float] = field(default_factory=list)
    cpu_at: list[float] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def foreign_share(self) -> float:
        """Part of the machine that others took."""
        return max(0.0, self.foreign_cpu) / (self.wall * (os.cpu_count() or 1))


def busy_seconds() -> float:
    """CPU seconds used so far by everything on the machine."""
    values = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(values) - values[3] - values[4]) / os.sysconf("SC_CLK_TCK")  # less idle, and waiting for disks


def tree(pid: int) -> list[int]:
    """Return a process and those below it."""
    found = [pid]
    for parent in found:
        try:
            for thread in os.listdir(f"/proc/{parent}/task"):
                found += [int(word) for word in Path(f"/proc/{parent}/task/{thread}/children").read_text().split()]
        except OSError:
            continue  # it has ended meanwhile
    return found


def resident_bytes(pids: Sequence[int]) -> int:
    """Memory that processes hold, shared pages counted once for each."""
    total = 0
    for pid in pids:
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            continue
    return total * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU that processes have used so far, and those below them that have ended."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def kill(pid: int) -> None:
    """End a process that was started here, and those below it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


class Follower:
    """Tells how many lines a file has grown by since the last look."""

    def __init__(self, path: Path):
        self.path = path
        self.read = 0

    def look(self) -> int:
        """Return the number of new lines, each whole; 0 as long as there is no file."""
        if not self.path.exists() or self.path.stat().st_size <= self.read:
            return 0
        with self.path.open("rb") as file:
            file.seek(self.read)
            new = file.read()
        self.read += new.rfind(b"\n") + 1
        return new.count(b"\n")


def watch(
    command: Sequence[str], lines: Path, log: Path, env: Mapping[str, str], folder: Path, limit: float = float("inf")
) -> Watched:
    """Run a command to its end, its output in `log`, and watch the file `lines`, which it writes. After `limit` seconds it is killed."""
    before, own, began = busy_seconds(), time.process_time(), time.monotonic()
    at: list[float] = []
    cpu_at: list[float] = []
    follower, peak, ticks = Follower(lines), 0, 0
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=dict(env), cwd=folder, start_new_session=True
        )
        try:
            while True:
                pid, status, usage = os.wait4(child.pid, os.WNOHANG)
                now = time.monotonic() - began
                if new := follower.look():
                    at += [now] * new
                    cpu_at += [usage.ru_utime + usage.ru_stime if pid else cpu_seconds(tree(child.pid))] * new
                if pid:
                    break
                if now > limit:
                    kill(child.pid)
                if ticks % MEMORY_TICKS == 0 and len(pids := tree(child.pid)) > 1:
                    peak = max(peak, resident_bytes(pids))
                ticks += 1
                time.sleep(TICK)
        except BaseException:
            kill(child.pid)  # whoever stops the benchmark stops what it runs
            raise
    child.returncode = os.waitstatus_to_exitcode(status)
    cpu = usage.ru_utime + usage.ru_stime
    foreign = busy_seconds() - before - cpu - (time.process_time() - own)
    text = lines.read_text(encoding="utf-8").splitlines() if lines.exists() else []
    return Watched(
        child.returncode,
        wall=time.monotonic() - began,
        cpu=cpu,
        foreign_cpu=foreign,
        peak_bytes=max(peak, usage.ru_maxrss * 1024),
        at=at,
        cpu_at=cpu_at,
        lines=[json.loads(line) for line in text[: len(at)]],
    )

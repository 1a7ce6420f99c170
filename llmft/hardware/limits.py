"""What the operating system lets this process have: memory of the machine and of its cgroup. No torch here."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
UNLIMITED_BYTES = 1 << 60
"""Version 1 writes a huge number where there is no limit."""


def memory_limit_bytes() -> int | None:
    """The tightest cgroup limit on this process (container, Slurm job, systemd scope); None: no limit."""
    return min((limit for limit, _ in _cgroups()), default=None)


def available_memory_bytes() -> int | None:
    """What can still be allocated before the machine swaps, the cgroup kills or a ulimit refuses; None: the system does not say."""
    machine = _number(PROC / "meminfo", "MemAvailable:")
    rooms = [limit - used for limit, used in [*_cgroups(), *_ulimits()]]
    if machine is not None:
        rooms.append(machine * 1024)
    return max(0, min(rooms)) if rooms else None


def total_memory_bytes() -> int | None:
    """Physical memory of the machine; None: the system does not say."""
    total = _number(PROC / "meminfo", "MemTotal:")
    return None if total is None else total * 1024


def resident_bytes() -> int:
    """Memory this process occupies now."""
    resident = _number(PROC / "self/status", "VmRSS:")
    return peak_resident_bytes() if resident is None else resident * 1024


def peak_resident_bytes() -> int:
    """The most memory this process has occupied.

    Not ru_maxrss where it can be helped: a child begins with the peak of the process that started it.
    """
    peak, now = _number(PROC / "self/status", "VmHWM:"), _number(PROC / "self/status", "VmRSS:")
    if peak is not None and now is not None:
        return max(peak, now) * 1024  # the kernel counts both roughly, and a peak below the present would puzzle
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def refused_beyond(room: int) -> Iterator[None]:
    """Inside the block, memory beyond `room` more bytes than the process has is refused, which can be caught.

    Without it the kernel gives whatever is asked for, and kills the process once it is used. What counts are pages of its own
    that it may write (VmData); where the system does not count them, nothing is refused.
    """
    used = _number(PROC / "self/status", "VmData:")
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    if used is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (min([used * 1024 + room, *limits]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def oom_kills() -> dict[str, Any]:
    """How many processes the kernel has killed for lack of memory: in this cgroup, and on the machine since it was booted.

    None where the system does not count them.
    """
    cgroup, counted = next(_kill_counts(), (None, None))
    return {
        "boot": next(iter(_lines(PROC / "sys/kernel/random/boot_id")), None),
        "cgroup": cgroup,
        "in_cgroup": counted,
        "on_machine": _number(PROC / "vmstat", "oom_kill "),
    }


def killed_since(before: dict[str, Any]) -> str | None:
    """Where the kernel killed for lack of memory since `oom_kills` said `before`: a half sentence, None where it did not.

    The cgroup's own count decides where it is still the same one.
    """
    now = oom_kills()
    if before["boot"] is None or before["boot"] != now["boot"]:
        return None
    for name, same, what in (
        ("in_cgroup", before["cgroup"] == now["cgroup"], f"in its cgroup {now['cgroup']}"),
        ("on_machine", True, "on this machine"),
    ):
        if same and before[name] is not None and now[name] is not None:
            more = now[name] - before[name]
            return f"the kernel has killed {more} for lack of memory {what} since it began" if more > 0 else None
    return None


def cpu_flags() -> set[str]:
    """Instruction sets of the processor as the kernel names them (x86: flags, ARM: Features); empty if it does not say."""
    for line in _lines(PROC / "cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            return set(value.split())
    return set()


def cpu_model() -> str | None:
    """Name of the processor; None if the kernel does not say."""
    for line in _lines(PROC / "cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return None


def _cgroups() -> Iterator[tuple[int, int]]:
    """Limit and use, in bytes, of every cgroup above this process that has a limit.

    Use does not count inactive file cache, which the kernel gives back before it kills.
    """
    for line in _lines(PROC / "self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = CGROUPS, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root, names = CGROUPS / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        own = Path(path.lstrip("/"))
        for folder in [own, *own.parents]:
            # Inside a container the path is often the host's; then only the root of the mount is there.
            limit, used = _number(root / folder / names[0]), _number(root / folder / names[1])
            if limit is not None and used is not None and limit < UNLIMITED_BYTES:
                yield limit, used - (_number(root / folder / "memory.stat", names[2]) or 0)


def _ulimits() -> Iterator[tuple[int, int]]:
    """Limit and use, in bytes, of the process's own limits on memory (ulimit -v and -d)."""
    for limit, name in ((resource.RLIMIT_AS, "VmSize:"), (resource.RLIMIT_DATA, "VmData:")):
        soft, _ = resource.getrlimit(limit)
        used = _number(PROC / "self/status", name)
        if soft != resource.RLIM_INFINITY and used is not None:
            yield soft, used * 1024


def _kill_counts() -> Iterator[tuple[str, int]]:
    """Path and count of killed processes of each cgroup that this process is in and that counts them."""
    for line in _lines(PROC / "self/cgroup"):
        _, controllers, path = line.split(":", 2)
        own = path.lstrip("/")
        for folder, name in ((CGROUPS, "memory.events"), (CGROUPS / "memory", "memory.oom_control")):
            counted = _number(folder / own / name, "oom_kill ")
            if counted is not None and (controllers == "" or "memory" in controllers.split(",")):
                yield path, counted


def _number(path: Path, name: str = "") -> int | None:
    """The number after `name` in a file with a name and a number a line, or the number a file begins with; None: not there."""
    for line in _lines(path):
        words = line.removeprefix(name).split()
        if line.startswith(name) and words and words[0].isdigit():
            return int(words[0])
    return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []

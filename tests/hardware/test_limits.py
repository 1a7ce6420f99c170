"""Memory limits and processor flags, read from /proc and /sys as they look on other machines."""

import resource
import subprocess
import sys

import pytest

from llmft.hardware import limits

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that lays out files below a false /proc and /sys/fs/cgroup."""
    monkeypatch.setattr(limits, "PROC", tmp_path / "proc")
    monkeypatch.setattr(limits, "CGROUPS", tmp_path / "cgroup")

    def write(files: dict[str, str]) -> None:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    write({"proc/meminfo": "MemTotal:       16777216 kB\nMemFree:  1 kB\nMemAvailable:    8388608 kB\n"})
    return write


def test_no_cgroup(machine):
    assert limits.total_memory_bytes() == 16 * GIB
    assert limits.available_memory_bytes() == 8 * GIB
    assert limits.memory_limit_bytes() is None


def test_version_2_takes_the_tightest_of_all_levels(machine):
    machine(
        {
            "proc/self/cgroup": "0::/slurm/job_7/step\n",
            "cgroup/slurm/memory.max": f"{6 * GIB}\n",
            "cgroup/slurm/memory.current": f"{5 * GIB}\n",
            "cgroup/slurm/memory.stat": f"anon 1\ninactive_file {GIB}\n",
            "cgroup/slurm/job_7/memory.max": f"{3 * GIB}\n",
            "cgroup/slurm/job_7/memory.current": f"{GIB // 2}\n",
            "cgroup/slurm/job_7/step/memory.max": "max\n",
            "cgroup/slurm/job_7/step/memory.current": "0\n",
        }
    )
    assert limits.memory_limit_bytes() == 3 * GIB
    assert limits.available_memory_bytes() == 2 * GIB  # /slurm: 6 - (5 - 1); job_7 leaves 2.5, the machine 8


def test_version_1_in_a_container(machine):
    machine(
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/docker/ab\n4:memory:/docker/ab\n0::/\n",  # the path is the host's
            "cgroup/memory/memory.limit_in_bytes": f"{4 * GIB}\n",
            "cgroup/memory/memory.usage_in_bytes": f"{3 * GIB}\n",
            "cgroup/memory/memory.stat": f"inactive_file 7\ntotal_inactive_file {2 * GIB}\n",
        }
    )
    assert limits.memory_limit_bytes() == 4 * GIB
    assert limits.available_memory_bytes() == 3 * GIB


def test_version_1_without_a_limit(machine):
    machine(
        {
            "proc/self/cgroup": "4:memory:/\n",
            "cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "cgroup/memory/memory.usage_in_bytes": "1\n",
        }
    )
    assert limits.memory_limit_bytes() is None
    assert limits.available_memory_bytes() == 8 * GIB


def test_more_used_than_allowed_is_nothing_left(machine):
    machine({"proc/self/cgroup": "0::/\n", "cgroup/memory.max": "10\n", "cgroup/memory.current": "11\n"})
    assert limits.available_memory_bytes() == 0


def test_a_system_that_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "PROC", tmp_path)
    assert (limits.available_memory_bytes(), limits.total_memory_bytes(), limits.memory_limit_bytes()) == (None, None, None)
    assert (limits.cpu_flags(), limits.cpu_model()) == (set(), None)
    assert limits.peak_resident_bytes() > 1_000_000


@pytest.mark.parametrize(
    ("text", "flags", "model"),
    [
        (
            "model name\t: Some CPU @ 2 GHz\nflags\t\t: fpu avx512_bf16\n\nflags\t\t: other\n",
            {"fpu", "avx512_bf16"},
            "Some CPU @ 2 GHz",
        ),
        ("BogoMIPS\t: 50.00\nFeatures\t: fp asimd bf16\n", {"fp", "asimd", "bf16"}, None),
    ],
)
def test_processor(machine, text, flags, model):
    machine({"proc/cpuinfo": text})
    assert (limits.cpu_flags(), limits.cpu_model()) == (flags, model)


def test_peak_stays_and_current_falls():
    code = "from llmft.hardware import limits\nbefore = limits.resident_bytes()\nblock = bytearray(b'x') * 200_000_000\n"
    code += (
        "high = limits.resident_bytes()\ndel block\nprint(before, high, limits.resident_bytes(), limits.peak_resident_bytes())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    before, high, after, peak = map(int, said.split())
    assert 190_000_000 < high - before < 220_000_000
    assert after - before < 20_000_000
    assert abs(peak - high) < 5_000_000


def test_a_child_does_not_begin_with_our_peak():
    block = bytearray(b"x") * 300_000_000
    code = "from llmft.hardware import limits; print(limits.peak_resident_bytes())"
    assert int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) < 100_000_000
    assert limits.resident_bytes() > len(block)


def test_a_ulimit_leaves_what_it_leaves():
    code = (
        "import resource\nfrom llmft.hardware import limits\n"
        "used = int(next(x for x in open('/proc/self/status') if x.startswith('VmSize:')).split()[1]) << 10\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 50_000_000, -1))\nprint(limits.available_memory_bytes())"
    )
    assert 48_000_000 < int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) <= 50_000_000


def test_memory_is_refused_inside_the_block_alone():
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with limits.refused_beyond(50 << 20):
        bytearray(20 << 20)
        with pytest.raises(MemoryError):
            bytearray(100 << 20)
    assert len(bytearray(100 << 20)) == 100 << 20
    with pytest.raises(ZeroDivisionError), limits.refused_beyond(0):
        1 / 0  # noqa: B018
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_a_tighter_limit_of_the_users_stays():
    code = (
        "import resource\nfrom llmft.hardware import limits\nresource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 31))\n"
        "with limits.refused_beyond(1 << 33):\n    print(*resource.getrlimit(resource.RLIMIT_DATA))\n"
        "print(*resource.getrlimit(resource.RLIMIT_DATA))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == f"{1 << 30} {1 << 31}\n" * 2


VERSION_2 = {"proc/self/cgroup": "0::/job\n", "cgroup/job/memory.events": "low 0\noom 3\noom_kill 2\noom_group_kill 0\n"}
VERSION_1 = {
    "proc/self/cgroup": "4:memory:/job\n0::/\n",
    "cgroup/memory/job/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
}
BOOT = {"proc/sys/kernel/random/boot_id": "boot-1\n", "proc/vmstat": "nr_free_pages 1\noom_kill 7\n"}


@pytest.mark.parametrize("files", [VERSION_2, VERSION_1], ids=["version 2", "version 1"])
def test_the_kernel_counts_whom_it_kills(machine, files):
    machine(BOOT | files)
    before = limits.oom_kills()
    assert before == {"boot": "boot-1", "cgroup": "/job", "in_cgroup": 2, "on_machine": 7}
    assert limits.killed_since(before) is None
    machine({"proc/vmstat": "oom_kill 8\n"})  # somebody else's
    assert limits.killed_since(before) is None
    machine({name: text.replace("oom_kill 2", "oom_kill 3") for name, text in files.items()})
    assert limits.killed_since(before) == "the kernel has killed 1 for lack of memory in its cgroup /job since it began"
    machine({"proc/sys/kernel/random/boot_id": "boot-2\n"})  # all counts began anew
    assert limits.killed_since(before) is None


def test_in_another_cgroup_the_machine_decides(machine):
    machine(BOOT | VERSION_2)
    before = limits.oom_kills()
    machine({"proc/self/cgroup": "0::/next\n", "cgroup/next/memory.events": "oom_kill 9\n"})
    assert limits.killed_since(before) is None
    machine({"proc/vmstat": "oom_kill 9\n"})
    assert limits.killed_since(before) == "the kernel has killed 2 for lack of memory on this machine since it began"


def test_a_system_that_counts_no_kills(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "PROC", tmp_path)
    nothing = {"boot": None, "cgroup": None, "in_cgroup": None, "on_machine": None}
    assert limits.oom_kills() == nothing
    assert limits.killed_since(nothing) is None

"""The C library's heap: blocks are given back alone or kept, as a run begins or has settled."""

import subprocess
import sys

import pytest

from llmft.hardware import heap

pytestmark = pytest.mark.skipif(heap.glibc() is None, reason="the C library is not glibc")

PAGES_OF_EACH_TENSOR = """
import resource, sys, torch
from llmft.hardware import heap, limits
exec(sys.argv[1])
pages = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
MIB = int(sys.argv[2])
for _ in range(20):
    torch.ones(MIB << 18)  # after the first one, glibc would keep up to 32 MiB by itself
before = pages()
for _ in range(20):
    torch.ones(MIB << 18)
print((pages() - before) / 20 / MIB)
"""


def fresh_pages(stage, mib=4, **environment):
    """Return how many pages a tensor has from the system for each MiB, of 256, when its like was freed just before."""
    command = [sys.executable, "-c", PAGES_OF_EACH_TENSOR, stage, str(mib)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(found.stdout)


def test_what_is_large_has_fresh_pages_at_the_start_and_the_same_later():
    assert fresh_pages("heap.begin()") > 125
    assert fresh_pages("heap.settle()") < 12
    assert fresh_pages("heap.settle()", mib=100) < 12


def test_what_is_large_is_given_back_where_memory_is_scarce():
    scarce = "limits.available_memory_bytes = lambda: 1 << 27; heap.settle()"
    assert fresh_pages(scarce) < 12
    assert fresh_pages(scarce, mib=100) > 125


def test_what_the_user_has_set_stays():
    assert fresh_pages("heap.begin()", MALLOC_MMAP_THRESHOLD_="33554432", MALLOC_TRIM_THRESHOLD_="67108864") < 12


def test_what_lies_free_is_given_back():
    code = """
from llmft.hardware import heap, limits
heap.bound(heap.LARGE)
blocks = [b"x" * 100_000 for _ in range(3000)]
kept = [blocks[place] for place in range(0, 3000, 100)]  # so that the heap's end is not free
del blocks
before = limits.resident_bytes()
heap.settle()
print(before - limits.resident_bytes())
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout) > 100 << 20

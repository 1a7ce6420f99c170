"""The C library's heap: blocks are given back alone or kept, as a run begins or has settled."""

import subprocess
import sys

import pytest

from llmft.hardware import heap

pytestmark = pytest.mark.skipif(heap.glibc() is None, reason="the C library is not glibc")

PAGES_OF_EACH_TENSOR = """
import resource, sys, torch
from llmft.hardware import heap
getattr(heap, sys.argv[1])()
pages = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(1 << 20)  # 4 MiB: after the first one, glibc would keep as much by itself
before = pages()
for _ in range(20):
    torch.ones(1 << 20)
print((pages() - before) / 20)
"""


def fresh_pages(stage, **environment):
    """Return how many pages of memory a tensor of 1,024 of them has from the system, when its like was freed just before."""
    command = [sys.executable, "-c", PAGES_OF_EACH_TENSOR, stage]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(found.stdout)


def test_what_is_large_has_fresh_pages_at_the_start_and_the_same_later():
    assert fresh_pages("begin") > 500
    assert fresh_pages("settle") < 50


def test_what_the_user_has_set_stays():
    assert fresh_pages("begin", MALLOC_MMAP_THRESHOLD_="33554432", MALLOC_TRIM_THRESHOLD_="67108864") < 50


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

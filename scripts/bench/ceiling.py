"""The most that this processor makes of matrix products, in fp32 and bf16: python -m scripts.bench.ceiling, one JSON line.

The best of some shapes, each for about half a second: large squares, and what a layer of SmolLM2-135M multiplies.
"""

import json
import time

import torch

SHAPES = ((2048, 2048, 2048), (2048, 576, 1536), (2048, 1536, 576), (1024, 1024, 4096))
SECONDS = 0.5


def flops_per_second(rows: int, inner: int, columns: int, dtype: torch.dtype) -> float:
    """Return the speed of the fastest of many products of these sizes."""
    left, right = torch.randn(rows, inner).to(dtype), torch.randn(columns, inner).to(dtype)
    best, until = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        began = time.perf_counter()
        torch.nn.functional.linear(left, right)
        best = min(best, time.perf_counter() - began)
    return 2 * rows * inner * columns / best


def main() -> None:
    """Print both ceilings in operations per second."""
    found = {
        name: max(flops_per_second(*shape, dtype) for shape in SHAPES)
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()

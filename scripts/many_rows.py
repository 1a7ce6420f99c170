"""Does memory grow with rows? `llmft train` on ten thousand and on a million short rows, twice each: cold and from its caches.

python scripts/many_rows.py MODEL FOLDER [ROWS ...]     MODEL: a small model's folder; FOLDER: for rows, caches and runs

Prints for each run the seconds, the processor seconds, and the kernel's peak of the process (ru_maxrss); then how the peaks
compare. Ends with 1 where one of more rows is more than a tenth above that of the fewest.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

WORDS = [
    "the",
    "fox",
    "dog",
    "cat",
    "sun",
    "runs",
    "jumps",
    "over",
    "quick",
    "lazy",
    "brown",
    "list",
    "value",
    "returns",
    "first",
]
MIB = 1 << 10  # ru_maxrss counts KiB
MOST = 1.1


def write_rows(path: Path, count: int, seed: int) -> None:
    """Write rows of a short document and a shorter summary, hardly any of them twice."""
    chance = random.Random(seed)
    with path.open("w") as out:
        for number in range(count):
            document = " ".join(chance.choices(WORDS, k=chance.randint(8, 24)))
            row = {"document": f"{document} {number}", "summary": " ".join(chance.choices(WORDS, k=chance.randint(3, 8)))}
            out.write(json.dumps(row) + "\n")


def run(model: str, folder: Path, count: int) -> dict[str, float]:
    """Train for five steps on so many rows; return seconds, processor seconds and peak MiB."""
    rows, few, output = folder / f"{count}.jsonl", folder / "few.jsonl", folder / "run"
    if not rows.exists():
        write_rows(rows, count, seed=count)
        write_rows(few, 64, seed=7)
    shutil.rmtree(output, ignore_errors=True)
    settings = {
        "task": "summarization",
        "task.data.train": f"[{rows}]",
        "task.data.validation": f"[{few}]",
        "task.data.test": f"[{few}]",
        "task.data.max_test": 8,
        "model.name": model,
        "generation.max_new_tokens": 8,
        "training.max_steps": 5,
        "training.baseline": "false",
        "output_dir": output,
    }
    command = [sys.executable, "-m", "llmft", "train", *(f"{key}={value}" for key, value in settings.items())]
    environment = os.environ | {"LLMFT_CACHE": str(folder / "cache")}
    began = time.monotonic()
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert child.stderr
    said = child.stderr.read()
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(said)
    return {"seconds": time.monotonic() - began, "processor": used.ru_utime + used.ru_stime, "MiB": used.ru_maxrss / MIB}


def main(model: str, folder: Path, counts: list[int]) -> int:
    """Run each count cold and warm, print what it took, and compare."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    peaks: dict[int, float] = {}
    for count in counts:
        for caches in ("cold", "warm"):
            found = run(model, folder, count)
            peaks[count] = max(peaks.get(count, 0.0), found["MiB"])
            figures = "  ".join(f"{name} {value:,.1f}" for name, value in found.items())
            print(f"{count:>10,} rows  {caches}  {figures}", flush=True)
    least = peaks[min(counts)]
    for count, peak in peaks.items():
        print(f"{count:>10,} rows  peak {peak:,.0f} MiB, {peak / least:.3f} of that of {min(counts):,}")
    return int(max(peaks.values()) > MOST * least)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]).absolute(), [int(each) for each in sys.argv[3:]] or [10_000, 1_000_000]))

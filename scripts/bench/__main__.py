"""The benchmark: llmft beside transformers' Trainer and TRL, on the same work. What it found stands in docs/performance.md.

    python -m scripts.bench [--only lora,generation] [--rounds 3] [--out outputs/bench] [--page docs/performance.md]

Each peer is tuned first, by a run of each setting of its grid, and by three of those near to the fastest; then rounds are played
in which every contestant has one turn after the other. All runs go on record as they end, so that the same command goes on where
it was stopped.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from llmft.hardware import limits
from llmft.runs.provenance import environment, fingerprint, hash_folder
from scripts.bench import page
from scripts.bench.contest import ROOT, Contest
from scripts.bench.measured import spread
from scripts.bench.rounds import Rounds, Unusable, say
from scripts.bench.works import every_work, growth, works

BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""What a processor is called that computes in bf16; the last is ARM's."""


def ceilings() -> dict[str, float]:
    """Measure what the processor can do at most, in a process of its own."""
    command = [sys.executable, "-m", "scripts.bench.ceiling"]
    values: dict[str, float] = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)
    say("ceilings: " + ", ".join(f"{name} {value / 1e9:,.0f} GFLOP/s" for name, value in values.items()))
    return values


def versions_of(python: Path) -> dict[str, str] | None:
    """Return the versions in TRL's environment; None where there is none."""
    if not python.exists():
        return None
    code = "import importlib.metadata as m, json; print(json.dumps({n: m.version(n) for n in ('trl', 'torch', 'transformers', 'peft')}))"
    found: dict[str, str] = json.loads(subprocess.run([python, "-c", code], stdout=subprocess.PIPE, check=True).stdout)
    return found


def parsed(bf16: bool) -> argparse.Namespace:
    """Read the command line; `only` becomes the works' names."""
    groups = {work.name: [work.name] for work in works(bf16)}
    groups["growth"] = [work.name for work in growth(bf16)]
    groups["million"] = [work.name for work in every_work(bf16) if work.name in ("rows-10000", "rows-1000000")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = [name for name in groups if name != "million"]
    parser.add_argument("--only", default=",".join(usual), help=f"parts, of {', '.join(groups)}; million takes long")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every contestant")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "outputs/bench", help="folder of rows, models and the record of runs"
    )
    parser.add_argument("--page", type=Path, default=ROOT / "docs/performance.md", help="page that gets the tables")
    parser.add_argument("--trl-python", type=Path, default=ROOT / ".venv-bench/bin/python", help="Python that has TRL")
    parser.add_argument("--busy", type=float, default=0.05, help="a run is repeated if others took more of the machine")
    parser.add_argument("--tries", type=int, default=2, help="runs, at most, to find a quiet one")
    options = parser.parse_args()
    if unknown := sorted(set(options.only.split(",")) - set(groups)):
        parser.error(f"--only: there is no {', '.join(unknown)}; there are {', '.join(groups)}")
    options.only = [name for group in options.only.split(",") for name in groups[group]]
    return options


def main() -> None:
    """Prepare, play, and write the page."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the run in progress ends too
    bf16 = bool(limits.cpu_flags() & BF16_FLAGS)
    options = parsed(bf16)
    folder, every = options.out.absolute(), every_work(bf16)
    os.environ |= {"HF_HUB_OFFLINE": "1", "LLMFT_CACHE": str(folder / "cache")}
    chosen = [work for work in every if work.name in options.only]
    if missing := [work.name for work in chosen if not work.made(folder)]:
        say(f"making rows and models: {', '.join(missing)}")
        subprocess.run([sys.executable, "-m", "scripts.bench.material", str(folder), *missing], cwd=ROOT, check=True)
    machine = environment()
    versions = {name: machine[name] for name in ("cpu", "cores", "python", "packages")} | {
        "trl": versions_of(options.trl_python)
    }
    # how they run, and how what they did is counted
    counted = ["peers/*.py", "contest.py", "flops.py"]
    versions["peers"] = fingerprint(files=hash_folder(ROOT / "scripts/bench", counted))
    ours = fingerprint(files=hash_folder(ROOT / "llmft", ["*.py"]) | hash_folder(ROOT / "conf", ["*.yaml"]))
    contest = Contest(folder, options.trl_python.absolute(), bf16)
    rounds = Rounds(contest, folder / "runs.jsonl", versions, ours, options.busy, options.tries)
    most = []
    for number in range(options.rounds):
        most.append(ceilings())
        for work in chosen:
            try:
                rounds.play(work, number, most[-1])
            except Unusable as error:
                raise SystemExit(f"{work.name}: {error}\n{contest.log_tail()}") from error
    found = {work: rounds.played(work, options.rounds) for work in every if work.made(folder)}
    usual = works(bf16)
    ceiling = {name: spread(each[name] for each in most).median for name in most[0]}
    facts = page.Facts(versions, time.strftime("%Y-%m-%d"), bf16, ceiling)
    page.write(
        options.page,
        facts,
        {work: played for work, played in found.items() if work in usual},
        {work: played for work, played in found.items() if work not in usual},
    )


if __name__ == "__main__":
    main()

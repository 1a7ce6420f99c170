"""Runs one contestant on one work, checks that it did that work, and sums up what was seen."""

import datetime
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmft.config.schema import Generation
from scripts.bench.flops import Lengths, training_flops
from scripts.bench.measured import Measured
from scripts.bench.stopwatch import Watched, watch
from scripts.bench.works import LORA_RANK, SEED, Contestant, Kind, Tuning, Work

ROOT = Path(__file__).parents[2]
FIRST_LOSS = {"fp32": 1e-4, "autocast": 2e-2, "bf16": 2e-2}
"""How far the loss of the first step, before any update, may be from llmft's, relatively: more would be other work."""
MODULES = {"trainer": "scripts.bench.peers.trainer", "trl": "scripts.bench.peers.sft", "generate": "scripts.bench.peers.write"}


@dataclass(frozen=True)
class Expected:
    """What a work amounts to, from the peers' rows: of each step its tokens, what carries loss, and its operations.

    grouped_flops: those of the steps of a peer that takes the rows by length over the epoch, the longest first.
    """

    tokens: list[int]
    bearing: list[int]
    flops: list[float]
    grouped_flops: list[float]

    @staticmethod
    def of(work: Work, folder: Path) -> "Expected":
        """Count the rows of a work."""
        steps = json.loads((folder / f"{work.name}.steps.json").read_text(encoding="utf-8"))
        config = json.loads((folder / "models" / work.model / "config.json").read_text(encoding="utf-8"))
        lengths = [[lengths_of(work.kind, row) for row in step] for step in steps]
        rank = LORA_RANK if work.lora else None
        ranked = sorted((row for step in steps for row in step), key=lambda row: -len(row["input_ids"]))  # as peers/job.py does
        grouped = [[lengths_of(work.kind, row) for row in step] for step in batched(ranked, work.batch_size)]
        return Expected(
            [sum(row.source + row.target for row in step) for step in lengths],
            [sum(row.bearing for row in step) for step in lengths],
            [training_flops(config, step, rank) for step in lengths],
            [training_flops(config, step, rank) for step in grouped],
        )


def batched(rows: list[Any], size: int) -> list[list[Any]]:
    """Return rows in steps of so many."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def lengths_of(kind: Kind, row: Mapping[str, Any]) -> Lengths:
    """Return a row's tokens; a text with a class is read, and counts as one."""
    if kind is Kind.label:
        return Lengths(len(row["input_ids"]), 0, 1)
    bearing = sum(label != -100 for label in row["labels"])
    if kind is Kind.pair:
        return Lengths(len(row["input_ids"]), len(row["labels"]), bearing)
    return Lengths(0, len(row["input_ids"]), bearing)


@dataclass(frozen=True)
class Contest:
    """Where runs are made: `folder` of the measurement, TRL's Python, whether the processor computes in bf16."""

    folder: Path
    trl_python: Path
    bf16: bool

    @property
    def dtype(self) -> str:
        """Number format that llmft computes in by itself."""
        return "bf16" if self.bf16 else "fp32"

    def run(self, work: Work, contestant: Contestant, tuning: Tuning | None, limit: float = float("inf")) -> Watched:
        """Run a contestant from a fresh folder, for `limit` seconds at most, and return what was seen."""
        scratch = self.folder / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        by_command = contestant.tool == "llmft" and work.kind is not Kind.generation
        if by_command:
            command, lines = self.llmft_command(work, contestant, scratch / "run"), scratch / "run" / "metrics.jsonl"
        else:
            command, lines = self.peer_command(work, contestant, tuning, scratch), scratch / "steps.jsonl"
        cache = scratch / "cache" if work.cold else self.folder / "cache"
        env = dict(os.environ, HF_HUB_OFFLINE="1", LLMFT_CACHE=str(cache))
        if not by_command:
            env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        watched = watch(command, lines, self.folder / "last.log", env, scratch, limit)
        if by_command and watched.exit == 0:
            results = json.loads((scratch / "run" / "results.json").read_text(encoding="utf-8"))
            watched.lines[-1]["loss_units_of_run"] = results["train"]["loss_units"]
        return watched

    def llmft_command(self, work: Work, contestant: Contestant, run: Path) -> list[str]:
        """Return the command line of llmft: the work, and nothing that makes it faster but what it does by itself."""
        return [
            str(Path(sys.executable).parent / "llmft"),
            "train",
            *work.settings,
            *contestant.settings,
            f"task.data.train={self.folder / f'{work.name}.jsonl'}",
            "task.data.holdout=0",
            f"model.name={self.folder / 'models' / work.model}",
            f"adapter={'lora' if work.lora else 'none'}",
            f"optimizer.lr={work.lr}",
            "schedule=constant",
            "schedule.warmup=0",
            f"training.epochs={work.epochs}",
            f"training.batch_size={work.batch_size}",
            "training.eval_every=never",
            "training.save_every=never",
            "training.baseline=false",
            "training.resume=never",
            f"seed={SEED}",
            f"output_dir={run}",
        ]

    def peer_command(self, work: Work, contestant: Contestant, tuning: Tuning | None, scratch: Path) -> list[str]:
        """Return the command line of a peer, its job written beside."""
        if tuning is None:  # llmft's own generation
            tuning = Tuning(Generation().batch_size, 1, self.dtype, "llmft")
        job = {
            "kind": work.kind.value,
            "model": str(self.folder / "models" / work.model),
            "steps": str(self.folder / f"{work.name}.steps.json"),
            "output": str(scratch / "steps.jsonl"),
            "folder": str(scratch / "trainer"),
            "lora_rank": LORA_RANK if work.lora else None,
            "lr": work.lr,
            "seed": SEED,
            **asdict(tuning),
        }
        (scratch / "job.json").write_text(json.dumps(job), encoding="utf-8")
        python = str(self.trl_python) if contestant.tool == "trl" else sys.executable
        module = MODULES["generate" if work.kind is Kind.generation else contestant.tool]
        return [python, "-m", module, str(scratch / "job.json")]

    def log_tail(self) -> str:
        """Return the end of what the last run printed."""
        return "\n".join((self.folder / "last.log").read_text(encoding="utf-8", errors="replace").splitlines()[-15:])


def wrong(work: Work, expected: Expected, tuning: Tuning | None, lines: list[dict[str, Any]]) -> list[str]:
    """Return how a run's work differs from what was asked for; empty if it was done."""
    if work.kind is Kind.generation:
        return [] if len(lines) == 2 else ["it did not write to its end"]
    if len(lines) != work.steps:
        return [f"{len(lines)} steps instead of {work.steps}"]
    found = []
    if "tokens" in lines[0] and (tokens := [line["tokens"] for line in lines]) != expected.tokens:
        found.append(f"tokens of the steps {tokens} instead of {expected.tokens}")
    whole = lines[-1].get("loss_units_of_run")
    if whole is not None and whole != sum(expected.bearing):
        found.append(f"{whole} with loss instead of {sum(expected.bearing)}")
    if "loss_units" in lines[0]:
        bearing, asked = [line["loss_units"] for line in lines], expected.bearing
        if tuning is not None and tuning.order == "grouped":
            bearing, asked = [sum(bearing)], [sum(asked)]
        if bearing != asked:
            found.append(f"{bearing} with loss instead of {asked}")
    return found


def other_start(losses: list[float], expected: list[float], tuning: Tuning) -> str | None:
    """Return what is wrong where the first step's loss, which no update has touched, is not the expected one."""
    if tuning.order == "grouped":
        return None  # its first step has other rows
    apart = abs(losses[0] - expected[0]) / abs(expected[0])
    limit = FIRST_LOSS[tuning.dtype]
    return f"the first loss {losses[0]:.6f} is {apart:.1e} from {expected[0]:.6f}" if apart > limit else None


def summed_up(
    work: Work, contestant: Contestant, tuning: Tuning | None, watched: Watched, expected: Expected, ceiling: float
) -> Measured:
    """Sum up a run. Its first step counts for the start alone; of a generation that is when the model is ready."""
    lines, seconds = watched.lines, watched.at[-1] - watched.at[0]
    units, flops, share = sum(expected.bearing[1:]), sum(expected.flops[1:]), 1.0
    if work.kind is Kind.generation:
        units = sum(line["loss_units"] for line in lines[1:])
    elif tuning is not None and tuning.order == "grouped":
        # its first step, which is not timed, has the longest rows: what is left is that share of the others' work
        share = sum(expected.grouped_flops[1:]) / flops
    positions = [line["positions"] for line in lines if "positions" in line]
    return Measured(
        work=work.name,
        contestant=contestant.name,
        tuning=tuning.named() if tuning else "",
        round=0,
        state="",
        date=datetime.datetime.now().isoformat(timespec="seconds"),
        per_second=units * share / seconds,
        startup=watched.at[0],
        seconds=seconds,
        step_cpu=(watched.cpu_at[-1] - watched.cpu_at[0]) / share,
        cpu=watched.cpu,
        peak_bytes=watched.peak_bytes,
        foreign_share=watched.foreign_share,
        flops=flops * share / seconds,
        ceiling=ceiling,
        losses=[line["loss"] for line in lines if "loss" in line],
        tokens_share=sum(expected.tokens) / sum(positions) if positions else None,
        texts=hashes(lines[-1]["texts"]) if work.kind is Kind.generation else [],
    )


def hashes(texts: list[list[int]]) -> list[str]:
    """Return a short hash of each text, to count those that two wrote alike."""
    return [hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:8] for ids in texts]

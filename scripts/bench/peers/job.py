"""What all peers share: their job, the model they load, and the line they write after each optimizer step.

Nothing of llmft is imported here: TRL runs in an environment of its own.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, set_seed

Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A work and a tuning, as plain values. `output` is the file of lines; `steps` that of rows, step by step."""

    kind: str
    model: str
    steps: str
    output: str
    folder: str
    micro: int
    accumulate: int
    dtype: str
    order: str
    padding_free: bool
    plain: bool
    lora_rank: int | None
    lr: float
    seed: int

    @property
    def weights(self) -> torch.dtype:
        """Number format that the weights are loaded in."""
        return torch.bfloat16 if self.dtype == "bf16" else torch.float32

    def rows(self) -> list[Row]:
        """Return the rows in the order they are trained on. Prompts are sorted where they are read."""
        steps = json.loads(Path(self.steps).read_text(encoding="utf-8"))
        if self.order == "sorted" and self.kind != "generation":
            steps = [sorted(step, key=lambda row: len(row["input_ids"])) for step in steps]
        rows = [row for step in steps for row in step]
        return sorted(rows, key=lambda row: -len(row["input_ids"])) if self.order == "grouped" else rows

    def options(self) -> Row:
        """Return what a peer is told in any case: the work, and no more files or screens than it has to write."""
        told: Row = {
            "output_dir": self.folder,
            "use_cpu": True,
            "per_device_train_batch_size": self.micro,
            "gradient_accumulation_steps": self.accumulate,
            "num_train_epochs": 1,
            "learning_rate": self.lr,
            "lr_scheduler_type": "constant",
            "weight_decay": 0.0,
            "max_grad_norm": 1.0,
            "seed": self.seed,
            "train_sampling_strategy": "sequential",
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
        }
        if not self.plain:
            told |= {"bf16": self.dtype == "autocast", "optim": "adamw_torch_fused", "gradient_checkpointing": False}
        return told

    def lora(self) -> Any:
        """Return the adapter's configuration, or None."""
        if self.lora_rank is None:
            return None
        from peft import LoraConfig  # costs a second where it is not used

        return LoraConfig(r=self.lora_rank, lora_alpha=2 * self.lora_rank, target_modules="all-linear", task_type="CAUSAL_LM")


class Counting:
    """Counts what a collator returns; a line is written once the step that used it is over."""

    def __init__(self, collate: Any):
        self.collate = collate
        self.batches: list[tuple[int, int]] = []

    def __call__(self, rows: list[Row]) -> Row:
        """Return the batch, its positions (padding too) and labels counted; a class counts as one."""
        batch: Row = self.collate(rows)
        labels = batch["labels"]
        positions = batch["input_ids"].numel() + (labels.numel() if "decoder_input_ids" in batch else 0)
        self.batches.append((positions, int((labels != -100).sum())))
        return batch


class Steps(TrainerCallback):
    """Writes a line per optimizer step, flushed: its loss, positions, and labels."""

    def __init__(self, job: Job, counting: Counting):
        self.file = open(job.output, "a", encoding="utf-8")  # noqa: SIM115 (open as long as the process lives)
        self.counting = counting
        self.accumulate = job.accumulate

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **given: Any) -> None:
        """Called behind each step with its loss, and at the end without one."""
        if "loss" not in logs:
            return
        # the loader is a batch ahead
        batches, self.counting.batches = self.counting.batches[: self.accumulate], self.counting.batches[self.accumulate :]
        line = {"step": state.global_step, "loss": logs["loss"], "positions": sum(positions for positions, _ in batches)}
        self.file.write(json.dumps(line | {"loss_units": sum(labels for _, labels in batches)}) + "\n")
        self.file.flush()


def start() -> Job:
    """Return the job in the file named on the command line, the random numbers seeded."""
    job = Job(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    set_seed(job.seed)
    return job

"""The record of a training run, metrics.jsonl: one row per logged step, one per validation, on disk as soon as written.

A number that is not finite is written as null.
"""

from pathlib import Path
from typing import Any

from llmft.runs.journal import Journal

Row = dict[str, Any]


class Record:
    """Writes metrics.jsonl. `every`: steps between training rows; the first step is always written."""

    def __init__(self, path: Path, every: int):
        self.every = every
        self.journal = Journal(path)

    def step(
        self,
        step: int,
        loss: float,
        lr: float,
        grad_norm: float,
        tokens: int,
        seconds: float,
        memory_bytes: int,
        epoch: float,
        skipped: bool = False,
    ) -> None:
        """Write the row of one optimizer step, if it is due; always one whose update was skipped. `step` counts finished steps, from 1; `tokens` and `seconds` are this step's."""
        if step != 1 and step % self.every and not skipped:
            return
        row = {"kind": "train", "step": step, "epoch": epoch, "loss": loss, "lr": lr, "grad_norm": grad_norm}
        row["skipped"] = skipped
        self.journal.append(row | {"tokens": tokens, "seconds": seconds, "memory_bytes": memory_bytes})

    def validation(self, step: int, values: dict[str, float]) -> None:
        """Write the scores of the validation after `step`; `loss` is the mean per token of the validation targets."""
        self.journal.append({"kind": "validation", "step": step, **values})

    def close(self) -> None:
        """Close the file."""
        self.journal.close()

    @staticmethod
    def resume(path: Path, step: int, validated: int | None) -> None:
        """Drop the rows of what a resumed run does again: steps after `step`, validations after the one at `validated`.

        None: it has not validated yet. A kill between a validation and the checkpoint of its step leaves a row too many.
        """
        last = {"train": step, "validation": -1 if validated is None else validated}
        if path.exists():
            Journal.keep(path, lambda row: row["step"] <= last[row["kind"]])


def read(path: Path) -> tuple[list[Row], list[Row]]:
    """Return the training rows and the validation rows of a metrics.jsonl; two empty lists if there is none yet."""
    rows = Journal.read(path) if path.exists() else []
    return [row for row in rows if row["kind"] == "train"], [row for row in rows if row["kind"] == "validation"]

"""A training that reads a few rows, for commands that should not get so far."""

import json
from pathlib import Path

TRAIN = [
    *("train", "task=summarization", "task.data.train=rows.jsonl", "task.data.holdout=0", "task.source={source}"),
    *("task.target={target}", "training.max_steps=1", "training.baseline=false", "generation.max_new_tokens=4"),
]


def rows_file(folder: Path) -> None:
    lines = [json.dumps({"source": f"{number} foxes", "target": f"{number}"}) for number in range(16)]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")

"""Writes what a work needs into the folder of the measurement: rows, models, and the peers' tokens.

    python -m scripts.bench.material FOLDER WORK ...

A process of its own, so that the one that starts and watches runs stays small.
"""

import json
import sys
from pathlib import Path

from transformers import AutoTokenizer

from scripts.bench import models, texts, tokens
from scripts.bench.works import Work, every_work

ROWS = {"summaries": texts.summaries, "topics": texts.topics, "questions": texts.questions}


def prepare(folder: Path, work: Work) -> None:
    """Write FOLDER/<work>.jsonl for llmft, and FOLDER/<work>.steps.json for peers: its rows as tokens, step by step."""
    models.make(folder / "models", [work.model])
    rows = list(texts.pieces(work.size, work.words)) if work.words else ROWS[work.rows]()[: work.size]
    if len(rows) < work.size:
        raise SystemExit(f"{work.name}: Python's library makes {len(rows)} rows, {work.size} are needed")
    texts.write(folder / f"{work.name}.jsonl", rows)
    tokenizer = AutoTokenizer.from_pretrained(folder / "models" / work.model)
    steps = tokens.in_order(work, rows, tokenizer)
    (folder / f"{work.name}.steps.json").write_text(json.dumps(steps), encoding="utf-8")
    (folder / f"{work.name}.recipe").write_text(work.recipe, encoding="utf-8")


def main(folder: Path, names: list[str]) -> None:
    """Prepare the works of these names."""
    for work in every_work(bf16=False):  # the rows are the same where bf16 is
        if work.name in names and not work.made(folder):
            prepare(folder, work)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

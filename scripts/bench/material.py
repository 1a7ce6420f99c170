"""Writes what a work needs into the folder of the measurement: rows, models, and the peers' tokens.

    python -m scripts.bench.material FOLDER WORK ...

A process of its own, so that the one that starts and watches runs stays small.
"""

import json
import sys
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from scripts.bench import models, texts, tokens
from scripts.bench.works import Kind, Work, every_work

ROWS = {"summaries": texts.summaries, "topics": texts.topics, "questions": texts.questions}


def prepare(folder: Path, work: Work) -> None:
    """Write FOLDER/<work>.jsonl for llmft, and FOLDER/<work>.steps.json for peers: its rows as tokens, step by step."""
    models.make(folder / "models", [work.model])
    tokenizer = AutoTokenizer.from_pretrained(folder / "models" / work.model)
    rows = rows_of(work)
    if len(rows) < work.size:
        raise SystemExit(f"{work.name}: Python's library makes {len(rows)} rows, {work.size} are needed")
    rows = clustered(work, rows, tokenizer) if work.clustered else rows[: work.size]
    texts.write(folder / f"{work.name}.jsonl", rows)
    steps = tokens.in_order(work, rows, tokenizer)
    (folder / f"{work.name}.steps.json").write_text(json.dumps(steps), encoding="utf-8")
    (folder / f"{work.name}.recipe").write_text(work.recipe, encoding="utf-8")


def rows_of(work: Work) -> list[texts.Row]:
    """Return all rows that a work's may be taken from."""
    if work.words:
        return list(texts.pieces(work.size, work.words))
    return texts.varied(work.size) if work.rows == "varied" else ROWS[work.rows]()


def clustered(work: Work, rows: list[texts.Row], tokenizer: Any) -> list[texts.Row]:
    """Return as many rows as a work has: batches of similar length, evenly spread over all rows by length."""
    column = "text" if work.kind is Kind.label else "document"
    ordered = sorted(rows, key=lambda row: len(tokenizer(row[column]).input_ids))
    batches = len(rows) // work.batch_size
    chosen = [(2 * number + 1) * batches // (2 * work.steps) for number in range(work.steps)]
    return texts.by_content(row for batch in chosen for row in ordered[batch * work.batch_size : (batch + 1) * work.batch_size])


def main(folder: Path, names: list[str]) -> None:
    """Prepare the works of these names."""
    for work in every_work(bf16=False):  # the rows are the same where bf16 is
        if work.name in names and not work.made(folder):
            prepare(folder, work)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

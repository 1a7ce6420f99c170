"""Extractive question answering by transformers' own Trainer, to compare llmft's with: its own loop, windows, search and scores.

    python scripts/squad_trainer.py MODEL TRAIN.json EVAL.json --epochs 3 --lr 3e-4 --batch 16 --length 160 --stride 64 --seed 1

TRAIN and EVAL are flat: {"data": [{"id", "question", "context", "answers": {"text": [...], "answer_start": [...]}}, ...]}.
Windows and answers are made as transformers' run_qa makes them; the order of the windows and the first weights of the head are
those that llmft draws from the same seed. With --mask-padding
the loss is llmft's, too: transformers' own lets a batch's padding compete with the answer. Prints one JSON object: exact
match and F1 in 0..100 (Rajpurkar et al. 2016, arXiv:1606.05250), the number of windows, and seconds.
"""

import argparse
import json
import re
import string
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import Sampler
from transformers import (
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from llmft.config.schema import Hardware
from llmft.data.order import Order
from llmft.hardware.determinism import prepare
from llmft.models.head import Head
from llmft.models.load import load_pretrained

N_BEST, LONGEST = 20, 30

Row = dict[str, Any]


def windows_of(tokenizer: Any, row: Row, length: int, stride: int) -> Iterator[Row]:
    """Yield a row's windows: what the model reads, the labels, and each context token's characters."""
    found = tokenizer(
        row["question"].lstrip(),
        row["context"],
        truncation="only_second",
        max_length=length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    answer, start = row["answers"]["text"][0], row["answers"]["answer_start"][0]
    end = start + len(answer)
    for number, offsets in enumerate(found["offset_mapping"]):
        places = [place for place, part in enumerate(found.sequence_ids(number)) if part == 1]
        first = last = 0  # [CLS]: the answer is not in this window
        if offsets[places[0]][0] <= start and offsets[places[-1]][1] >= end:
            first = max(place for place in places if offsets[place][0] <= start)
            last = min(place for place in places if offsets[place][1] >= end)
        inputs = {name: found[name][number] for name in tokenizer.model_input_names}
        yield {
            "inputs": inputs | {"start_positions": first, "end_positions": last},
            "offsets": {place: offsets[place] for place in places},
        }


class InOrder(Sampler[int]):
    """The windows of one epoch after the other, in llmft's order."""

    def __init__(self, order: Order):
        self.order = order
        self.epoch = 0

    def __len__(self) -> int:
        return self.order.num_rows

    def __iter__(self) -> Iterator[int]:
        per_epoch = self.order.steps_per_epoch
        for step in range(self.epoch * per_epoch, (self.epoch + 1) * per_epoch):
            yield from self.order.rows_of_step(step)
        self.epoch += 1


class OrderedTrainer(Trainer):
    """A Trainer that is told the order, and whether padding may be an answer, as it may in transformers' own loss."""

    sampler: InOrder
    mask_padding: bool

    def _get_train_sampler(self, *given: Any) -> InOrder:
        return self.sampler

    def compute_loss(self, model: Any, inputs: Row, *given: Any, **options: Any) -> Any:
        """Return transformers' own loss, or the same with the places behind a window's end left out of the softmax."""
        if not self.mask_padding:
            return super().compute_loss(model, inputs, *given, **options)
        found = model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], token_type_ids=inputs["token_type_ids"]
        )
        behind = inputs["attention_mask"] == 0
        starts = cross_entropy(found.start_logits.masked_fill(behind, -torch.inf), inputs["start_positions"])
        return (starts + cross_entropy(found.end_logits.masked_fill(behind, -torch.inf), inputs["end_positions"])) / 2


def train(model: Any, tokenizer: Any, inputs: list[Row], options: argparse.Namespace, folder: str) -> None:
    """Train all weights: AdamW without weight decay, the learning rate falling in a line from the first step on."""
    arguments = TrainingArguments(
        output_dir=folder,
        num_train_epochs=options.epochs,
        learning_rate=options.lr,
        per_device_train_batch_size=options.batch,
        weight_decay=0.0,
        warmup_steps=0,
        lr_scheduler_type="linear",
        optim="adamw_torch",
        seed=options.seed,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_steps=50,
    )
    trainer = OrderedTrainer(model, arguments, DataCollatorWithPadding(tokenizer), train_dataset=inputs)
    trainer.sampler = InOrder(Order(len(inputs), options.batch, options.seed))
    trainer.mask_padding = options.mask_padding
    trainer.train()


@torch.no_grad()
def answer(model: Any, tokenizer: Any, row: Row, length: int, stride: int) -> str:
    """Return the best answer over all windows, each scored by itself."""
    best = (-float("inf"), 0, 0)
    for window in windows_of(tokenizer, row, length, stride):
        inputs = {name: torch.tensor([window["inputs"][name]]) for name in tokenizer.model_input_names}
        found = model(**{name: value.to(model.device) for name, value in inputs.items()})
        start_scores, end_scores = found.start_logits[0].tolist(), found.end_logits[0].tolist()
        starts, ends = (
            sorted(range(len(scores)), key=scores.__getitem__, reverse=True)[:N_BEST] for scores in (start_scores, end_scores)
        )
        for start in starts:
            for end in ends:
                if start in window["offsets"] and end in window["offsets"] and start <= end < start + LONGEST:
                    score = start_scores[start] + end_scores[end]
                    best = max(best, (score, window["offsets"][start][0], window["offsets"][end][1]), key=lambda each: each[0])
    return row["context"][best[1] : best[2]]


def words(text: str) -> list[str]:
    """Return the words that count: lower case, no punctuation, no articles."""
    text = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def f1(found: str, gold: str) -> float:
    """Harmonic mean of the shares of words that two answers have in common."""
    shared = sum((Counter(words(found)) & Counter(words(gold))).values())
    return 2 * shared / (len(words(found)) + len(words(gold))) if shared else 0.0


def main() -> None:
    """Train, answer, score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "train", "eval"):
        parser.add_argument(name, type=Path)
    for name, kind in (("epochs", float), ("lr", float), ("batch", int), ("length", int), ("stride", int), ("seed", int)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--mask-padding", action="store_true", help="leave padding out of the loss, as llmft does")
    options = parser.parse_args()
    began = time.monotonic()
    prepare(Hardware(), options.seed)
    pretrained = load_pretrained(options.model, torch.float32, torch.device("cpu"), Head.span)  # the head that llmft draws
    tokenizer, model = pretrained.tokenizer, pretrained.model
    set_seed(options.seed)
    rows = json.loads(options.train.read_text(encoding="utf-8"))["data"]
    inputs = [window["inputs"] for row in rows for window in windows_of(tokenizer, row, options.length, options.stride)]
    with tempfile.TemporaryDirectory() as folder:
        train(model, tokenizer, inputs, options, folder)
    model.eval()
    asked = json.loads(options.eval.read_text(encoding="utf-8"))["data"]
    found = [answer(model, tokenizer, row, options.length, options.stride) for row in asked]
    pairs = [[(each, gold) for gold in row["answers"]["text"]] for each, row in zip(found, asked, strict=True)]
    exact = sum(any(words(each) == words(gold) for each, gold in golds) for golds in pairs)
    result = {
        "seed": options.seed,
        "mask_padding": options.mask_padding,
        "exact_match": round(100 * exact / len(pairs), 2),
        "f1": round(100 * sum(max(f1(each, gold) for each, gold in golds) for golds in pairs) / len(pairs), 2),
        "n": len(pairs),
        "windows": len(inputs),
        "seconds": round(time.monotonic() - began),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""The token ids and labels that peers train on: those of llmft, in llmft's order, written independently of its code.

Only the order of rows is llmft's own, a permutation. That the ids are the same is checked where runs are compared: tokens of
every step, loss-bearing tokens of all, and the loss of the first step have to agree.
"""

from typing import Any

from llmft.data.order import Order
from scripts.bench.works import SEED, Kind, Work

Row = dict[str, Any]

PROMPTS = {
    "summaries": "Summarize the following text in one sentence.\n\n{document}",
    "questions": "Answer the question from the text, in as few words as possible.\n\nText: {context}\n\nQuestion: {question}",
}
"""What a decoder is asked, as conf/task has it."""
TARGETS = {"summaries": "summary", "questions": "answer"}


def encoded(work: Work, rows: list[Row], tokenizer: Any) -> list[Row]:
    """Return {input_ids, labels} of each row, in the order of the file."""
    if work.kind is Kind.label:
        names = {name: place for place, name in enumerate(sorted({row["label"] for row in rows}))}
        return [{"input_ids": tokenizer(row["text"]).input_ids, "labels": names[row["label"]]} for row in rows]
    target = TARGETS[work.rows]
    if work.kind is Kind.pair:
        return [
            {"input_ids": tokenizer(row["document"]).input_ids, "labels": tokenizer(text_target=row[target]).input_ids}
            for row in rows
        ]
    found = []
    for row in rows:
        turn = [{"role": "user", "content": PROMPTS[work.rows].format_map(row)}]
        text = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        prompt = tokenizer(text, add_special_tokens=False).input_ids
        answer = tokenizer(row[target], add_special_tokens=False).input_ids + [tokenizer.eos_token_id]
        found.append({"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer})
    return found


def in_order(work: Work, rows: list[Row]) -> list[list[Row]]:
    """Return the rows of every optimizer step, as llmft takes them."""
    order = Order(len(rows), work.batch_size, SEED)
    return [[rows[place] for place in order.rows_of_step(step)] for step in range(work.steps)]


def counts(work: Work, row: Row) -> tuple[int, int]:
    """Return a row's tokens (of both streams) and how many carry loss; of a text with a class, one."""
    if work.kind is Kind.label:
        return len(row["input_ids"]), 1
    bearing = sum(label != -100 for label in row["labels"])
    return len(row["input_ids"]) + (len(row["labels"]) if work.kind is Kind.pair else 0), bearing

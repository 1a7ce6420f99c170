"""The token ids and labels that peers train on: those of llmft, in llmft's order, written independently of its code.

Only the order of rows is llmft's own, a permutation. That the ids are the same is checked where runs are compared: tokens of
every step, loss-bearing tokens of all, and the loss of the first step have to agree.
"""

from typing import Any

from llmft.data.order import Order
from scripts.bench.works import SEED, Kind, Work

Row = dict[str, Any]

SUMMARIZE = "Summarize the following text in one sentence.\n\n{document}"
PROMPTS = {
    "varied": SUMMARIZE,
    "pieces": SUMMARIZE,
    "questions": "Answer the question from the text, in as few words as possible.\n\nText: {context}\n\nQuestion: {question}",
}
"""What a decoder is asked, as conf/task has it."""
TARGETS = {"summaries": "summary", "varied": "summary", "pieces": "summary", "questions": "answer"}


def encoded(work: Work, rows: list[Row], labels: list[str], tokenizer: Any) -> list[Row]:
    """Return {input_ids, labels} of rows; `labels`: names of the classes in their order."""
    if work.kind is Kind.label:
        return [{"input_ids": tokenizer(row["text"]).input_ids, "labels": labels.index(row["label"])} for row in rows]
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
        answer = [*tokenizer(row[target], add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        found.append({"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer})
    return found


def in_order(work: Work, rows: list[Row], tokenizer: Any) -> list[list[Row]]:
    """Return the tokens of the rows of every optimizer step, as llmft takes them."""
    order = Order(len(rows), work.batch_size, SEED)
    labels = sorted({row["label"] for row in rows}) if work.kind is Kind.label else []
    return [encoded(work, [rows[place] for place in order.rows_of_step(step)], labels, tokenizer) for step in range(work.steps)]

"""Greedy generation over the prompts of a job: python -m scripts.bench.peers.write JOB.

order: llmft, by llmft's generation path; sorted, transformers' `generate` over batches of similar length; given, over batches
in the order of the file. Writes a line when the model is ready and one at the end, with what was generated.
"""

import json
from collections.abc import Iterator
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from scripts.bench.peers.job import Job, start

NEW_TOKENS = 32


def generated(job: Job, prompts: list[list[int]]) -> Iterator[tuple[int, list[int]]]:
    """Yield each prompt's place and new tokens by transformers' `generate`; first of all, nothing: the model is ready."""
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    model: Any = AutoModelForCausalLM.from_pretrained(job.model, dtype=job.weights).eval()
    config = GenerationConfig(
        max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    places = list(range(len(prompts)))
    if job.order == "sorted":
        places.sort(key=lambda place: -len(prompts[place]))
    yield -1, []
    for start_of_batch in range(0, len(places), job.micro):
        batch = places[start_of_batch : start_of_batch + job.micro]
        width = max(len(prompts[place]) for place in batch)
        ids = torch.tensor([[config.pad_token_id] * (width - len(prompts[place])) + prompts[place] for place in batch])
        mask = torch.tensor([[0] * (width - len(prompts[place])) + [1] * len(prompts[place]) for place in batch])
        with torch.no_grad():
            found = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
        for place, row in zip(batch, found[:, width:].tolist(), strict=True):
            yield place, row[: row.index(config.eos_token_id)] if config.eos_token_id in row else row


def generated_by_llmft(job: Job, prompts: list[list[int]]) -> Iterator[tuple[int, list[int]]]:
    """Yield the same by llmft."""
    from pathlib import Path

    from llmft.config.schema import Generation
    from llmft.hardware import heap
    from llmft.models.generate import generate, generation_config
    from llmft.models.load import load_pretrained

    pretrained = load_pretrained(Path(job.model), job.weights, torch.device("cpu"))
    pretrained.model.eval()
    tokenizer = pretrained.tokenizer
    settings = Generation(max_new_tokens=NEW_TOKENS, batch_size=job.micro)
    config = generation_config(settings, pretrained, [tokenizer.eos_token_id], tokenizer.pad_token_id)
    heap.settle()  # as `llmft predict` and evaluations do before they write
    yield -1, []
    for place, continuation in generate(pretrained, prompts, config, job.micro, job.weights):
        yield place, continuation.ids


def main() -> None:
    """Generate, and write down what."""
    job = start()
    prompts = [prompt_of(row) for row in job.rows()]
    found: dict[int, list[int]] = {}
    with open(job.output, "a", encoding="utf-8") as file:
        for place, ids in (generated_by_llmft if job.order == "llmft" else generated)(job, prompts):
            if place < 0:
                file.write(json.dumps({"step": 0}) + "\n")
                file.flush()
            else:
                found[place] = ids
        texts = [found[place] for place in range(len(prompts))]
        new = sum(len(ids) + (len(ids) < NEW_TOKENS) for ids in texts)
        file.write(json.dumps({"step": 1, "loss_units": new, "texts": texts}) + "\n")


def prompt_of(row: dict[str, Any]) -> list[int]:
    """Return a row's tokens before the answer."""
    return [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label == -100]


if __name__ == "__main__":
    main()

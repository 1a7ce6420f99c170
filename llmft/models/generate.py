"""Decoding: prompts in, continuations out, one interface whatever runs behind it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteria

from llmft.config.schema import Generation
from llmft.hardware.precision import autocast
from llmft.runs import signals


@dataclass(frozen=True)
class Continuation:
    """Tokens written after a prompt, without the end token; `finished` is "stop" at an end token, "length" at the limit."""

    ids: list[int]
    finished: str


class SignalCheck(StoppingCriteria):
    """Looks for a stop signal at each token; it never ends a text by itself."""

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **options: object) -> torch.BoolTensor:
        signals.check()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)  # type: ignore[return-value]


def generation_config(generation: Generation, end_ids: Sequence[int], pad_id: int) -> GenerationConfig:
    """Translate llmft's settings into transformers', also saved with the final model."""
    sampling = generation.temperature > 0
    config = GenerationConfig(
        max_new_tokens=generation.max_new_tokens,
        num_beams=generation.num_beams,
        do_sample=sampling,
        repetition_penalty=generation.repetition_penalty,
        no_repeat_ngram_size=generation.no_repeat_ngram_size,
        eos_token_id=list(end_ids),
        pad_token_id=pad_id,
    )
    if sampling:  # transformers warns about sampling settings that greedy decoding does not read
        config.update(temperature=generation.temperature, top_p=generation.top_p, top_k=generation.top_k or 0)
    return config


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    generation: Generation,
    end_ids: Sequence[int],
    pad_id: int,
    precision: torch.dtype,
) -> Iterator[tuple[int, Continuation]]:
    """Decode a continuation for each prompt; yield it with the prompt's place, as batches finish.

    Prompts of similar length share a batch, longest first, so that little is padded and the largest batch comes first.
    Raises Stopped at the next token after a signal.
    """
    config = generation_config(generation, end_ids, pad_id)
    order = sorted(range(len(prompts)), key=lambda row: (-len(prompts[row]), row))
    for start in range(0, len(order), generation.batch_size):
        rows = order[start : start + generation.batch_size]
        training = model.training
        model.eval()
        try:
            with autocast(model.device, precision), signals.deferred():
                found = decode(model, [prompts[row] for row in rows], config)
        finally:
            model.train(training)
        yield from zip(rows, found, strict=True)


@torch.no_grad()
def decode(model: PreTrainedModel, prompts: Sequence[Sequence[int]], config: GenerationConfig) -> list[Continuation]:
    """Decode one batch, padded on the left so that all prompts end at the same place."""
    width = max(len(prompt) for prompt in prompts)
    pad = config.pad_token_id
    tokens = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    output = model.generate(  # type: ignore[operator]
        input_ids=tokens, attention_mask=mask, generation_config=config, stopping_criteria=[SignalCheck()]
    )
    return [until_end(row[width:].tolist(), set(config.eos_token_id)) for row in output]


def until_end(ids: list[int], end_ids: set[int]) -> Continuation:
    """Cut a row at its first end token. What follows is padding, which may be the end token itself."""
    for position, token in enumerate(ids):
        if token in end_ids:
            return Continuation(ids[:position], "stop")
    return Continuation(ids, "length")

"""Text to text on decoders: the prompt is context, the answer and its end token carry the loss."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from llmft.config.schema import Generation, LossOn
from llmft.data.encode import Encoded
from llmft.data.example import Message, TextExample, TextPrediction
from llmft.data.prompt import Prompt
from llmft.data.shorten import shorten
from llmft.errors import ConfigError
from llmft.models.generate import generate, generation_config
from llmft.models.load import Pretrained
from llmft.tasks.learn.decoder_passes import DecoderPasses
from llmft.tasks.learn.source import fit_source, texts_ahead
from llmft.tasks.text_to_text import TextToText


class TextDecoder(DecoderPasses):
    """A decoder that learns to write answers to prompts."""

    def __init__(self, formulation: TextToText, pretrained: Pretrained, generation: Generation, precision: torch.dtype):
        super().__init__(pretrained, precision)
        self.formulation = formulation
        self.generation = generation
        self.prompt = Prompt(formulation.task, pretrained.tokenizer)
        self.frame = len(self.prompt.prompt_ids(""))  # tokens that the prompt adds around a source
        context = pretrained.context
        if context and self.frame + generation.max_new_tokens >= context:
            raise ConfigError(
                f"generation.max_new_tokens={generation.max_new_tokens} leaves no room for a source: the model reads {context} "
                f"tokens, {self.frame} of them are the prompt. Lower it."
            )
        formulation.limit = self.limited

    def prompt_of(self, example: TextExample, room: int) -> tuple[list[int], int]:
        """Return the prompt's ids with `room` tokens of the context left for the answer, and how many source tokens were cut.

        A conversation loses its oldest turns.
        """
        free = self.pretrained.context - room if self.pretrained.context else None
        if not isinstance(example.source, str):
            return self.conversation_ids(example.source, free, example.where)
        fitted, cut = fit_source(
            example,
            self.formulation.task,
            self.pretrained.tokenizer,
            None if free is None else free - self.frame,
            self.prompt.text_ids,
        )
        return self.prompt.prompt_ids(fitted.source, fitted.context), cut

    def conversation_ids(self, turns: tuple[Message, ...], free: int | None, where: str) -> tuple[list[int], int]:
        """Return a conversation's ids, without its oldest turns where they do not all fit, and how many tokens that cost."""
        whole = ids = self.prompt.prompt_ids(turns)
        limit = min((each for each in (self.formulation.task.max_source_tokens, free) if each is not None), default=None)
        system = turns[:1] if turns[0].role == "system" else ()
        while limit is not None and len(ids) > limit:
            # up to the next question of the user's: an answer without its question would be read as a beginning
            later = next((place for place in range(len(system) + 1, len(turns)) if turns[place].role == "user"), None)
            if later is None:
                return self.prompt.prompt_ids(self.with_last_cut(turns, len(ids) - limit, where)), len(whole) - limit
            turns = system + turns[later:]
            ids = self.prompt.prompt_ids(turns)
        return ids, len(whole) - len(ids)

    def with_last_cut(self, turns: tuple[Message, ...], excess: int, where: str) -> tuple[Message, ...]:
        """Return a conversation whose last turn is shorter by some tokens."""
        tokenizer, last = self.pretrained.tokenizer, turns[-1]
        size = len(tokenizer(last.content, add_special_tokens=False).input_ids)
        content, _ = shorten(tokenizer, last.content, max(1, size - excess), self.formulation.task.truncation, where)
        return (*turns[:-1], replace(last, content=content))

    def encode(self, example: TextExample) -> Iterator[Encoded]:
        """Tokenise prompt and answer. An answer that is too long for task.max_target_tokens or the context leaves no tokens.

        Of a conversation every assistant turn is an answer, unless task.loss_on says the last. Where the tokens up to a turn
        begin those of a later one, both are learnt in one document.
        """
        documents: list[tuple[list[int], list[int], int]] = []  # ids, where answers begin and end, tokens cut
        for turn in reversed(self.answered(example)):
            answer = self.prompt.target_ids(turn.targets[0])
            if not self.fits(answer):
                if turn is example:
                    yield Encoded(example.id, np.empty(0, np.int32), np.empty(0, np.bool_), None, example.where, units=0)
                continue
            prompt, cut = self.prompt_of(turn, room=max(len(answer), self.generation.max_new_tokens))
            ids = prompt + answer
            holder = next((found for found in documents if found[0][: len(ids)] == ids), None)
            if holder is None:
                documents.append((ids, [len(prompt), len(ids)], cut))
            else:
                holder[1].extend([len(prompt), len(ids)])
        for ids, bounds, cut in documents:
            mask = np.zeros(len(ids), np.bool_)
            for start, end in zip(bounds[::2], bounds[1::2], strict=True):
                mask[start:end] = True
            units = int(np.count_nonzero(mask[1:]))  # the first token is predicted from nothing
            yield Encoded(example.id, np.array(ids, np.int32), mask, None, example.where, units, cut)

    def answered(self, example: TextExample) -> list[TextExample]:
        """Return the answers that are learnt, each with what led up to it, the last one at the end."""
        if self.formulation.task.loss_on is LossOn.all and not isinstance(example.source, str):
            return [*earlier_turns(example), example]
        return [example]

    def ahead(self, examples: Sequence[TextExample]) -> None:
        """Tokenise in bulk what `encode` will ask for."""
        answers = [answer for example in examples for answer in self.answered(example)]
        limits = (self.formulation.task.max_source_tokens, self.pretrained.context)
        asked, texts = texts_ahead(answers, min((each for each in limits if each), default=None))
        self.prompt.ahead(asked, [*texts, *(answer.targets[0] for answer in answers)])

    def fits(self, answer: Sequence[int]) -> bool:
        """Whether an answer is within task.max_target_tokens, and leaves room for a source in the context."""
        limit = self.formulation.task.max_target_tokens
        room = self.pretrained.context - self.frame if self.pretrained.context else len(answer) + 1
        return len(answer) <= (limit or len(answer)) and len(answer) < room

    def encoding(self) -> dict[str, Any]:
        """Return the prompt's settings and the limits."""
        task = self.formulation.task
        return {
            "prompt": self.prompt.settings.to_json(),
            "loss_on": task.loss_on.value,
            "limits": [task.max_source_tokens, task.max_target_tokens, self.pretrained.context, self.generation.max_new_tokens],
        }

    def predict(self, examples: Sequence[TextExample]) -> Iterator[tuple[int, TextPrediction]]:
        """Decode an answer for each example."""
        prompts = [self.prompt_of(example, room=self.generation.max_new_tokens)[0] for example in examples]
        for place, continuation in generate(
            self.pretrained, prompts, self.generation_config(), self.generation.batch_size, self.precision
        ):
            yield place, TextPrediction(examples[place].id, self.prompt.decode(continuation.ids), continuation.finished)

    def limited(self, text: str) -> str:
        """Cut a text to max_new_tokens, for comparing other answers with the model's."""
        ids = self.pretrained.tokenizer(text, add_special_tokens=False).input_ids
        limit = self.generation.max_new_tokens
        return text if len(ids) <= limit else self.prompt.decode(ids[:limit])

    def settings(self) -> dict[str, Any]:
        """Return the prompt's settings."""
        return self.prompt.settings.to_json()

    def generation_config(self) -> GenerationConfig:
        """Return how answers are decoded."""
        return generation_config(self.generation, self.pretrained, self.prompt.end_ids, self.prompt.pad_id)


def earlier_turns(example: TextExample) -> Iterator[TextExample]:
    """Return the earlier answers of a conversation, each with what led up to it."""
    for place, turn in enumerate(example.source):
        if place and isinstance(turn, Message) and turn.role == "assistant":
            yield TextExample(example.id, tuple(example.source[:place]), (turn.content,), example.where)  # type: ignore[arg-type]

"""Text to text on encoder-decoders: the encoder reads the source, the decoder's target tokens carry the loss."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig

from llmft.config.schema import Generation
from llmft.data.batch import Batch, collate_pair
from llmft.data.encode import Encoded
from llmft.data.encoder_prompt import EncoderPrompt
from llmft.data.example import TextExample, TextPrediction
from llmft.errors import ConfigError
from llmft.models.computing import computing
from llmft.models.generate import generate, generation_config
from llmft.models.head import Head
from llmft.models.languages import set_languages
from llmft.models.load import Pretrained
from llmft.models.padded import pair_loss
from llmft.models.path_check import PathCheck
from llmft.models.ragged.pair import flat_pair_loss, reason_against
from llmft.tasks.learn.source import fit_source, texts_ahead
from llmft.tasks.learn.together import Form, check_together, cut_for, summed
from llmft.tasks.text_to_text import TextToText


class TextEncoderDecoder:
    """An encoder-decoder that learns to write one text after reading another."""

    head = Head.text
    unit = "tokens"

    def __init__(self, formulation: TextToText, pretrained: Pretrained, generation: Generation, precision: torch.dtype):
        self.formulation = formulation
        self.pretrained = pretrained
        self.generation = generation
        self.precision = precision
        self.form = Form.alone
        self.sharing = False  # nothing is shared here
        task = formulation.task
        self.forced_bos = set_languages(pretrained.tokenizer, pretrained.model, task.source_language, task.target_language)
        self.prompt = EncoderPrompt(task, pretrained.tokenizer, pretrained.model.config)
        self.frame = len(self.prompt.prompt_ids(""))
        if pretrained.context and generation.max_new_tokens >= pretrained.context:
            raise ConfigError(
                f"generation.max_new_tokens={generation.max_new_tokens}: the model writes at most {pretrained.context} tokens. Lower it."
            )
        formulation.limit = self.limited

    def source_of(self, example: TextExample) -> tuple[list[int], int]:
        """Return the encoder's ids and how many source tokens were cut. A conversation is one text, its turns in order."""
        room = self.pretrained.context - self.frame if self.pretrained.context else None
        fitted, cut = fit_source(in_one(example), self.formulation.task, self.pretrained.tokenizer, room, self.prompt.text_ids)
        return self.prompt.prompt_ids(str(fitted.source), fitted.context), cut

    def encode(self, example: TextExample) -> Iterator[Encoded]:
        """Tokenise source and target. A target that is too long for task.max_target_tokens or the decoder leaves no tokens."""
        target = self.prompt.target_ids(example.targets[0])
        longest = min(
            (each for each in (self.formulation.task.max_target_tokens, self.pretrained.context) if each), default=len(target)
        )
        nothing = np.empty(0, np.int32)
        if len(target) > longest:
            yield Encoded(example.id, nothing, np.empty(0, np.bool_), nothing, example.where, units=0)
            return
        source, cut = self.source_of(example)
        mask = np.ones(len(target), np.bool_)
        ids, source_ids = np.array(target, np.int32), np.array(source, np.int32)
        yield Encoded(example.id, ids, mask, source_ids, example.where, len(target), cut)

    def ahead(self, examples: Sequence[TextExample]) -> None:
        """Tokenise in bulk what `encode` will ask for."""
        limits = (self.formulation.task.max_source_tokens, self.pretrained.context)
        asked, texts = texts_ahead(map(in_one, examples), min((each for each in limits if each), default=None))
        targets = [example.targets[0] for example in examples]
        self.prompt.ahead([(str(source), context) for source, context in asked], texts, targets)

    def encoding(self) -> dict[str, Any]:
        """Return the prompt's settings and the limits."""
        return {
            "prompt": self.prompt.settings.to_json(),
            "limits": [self.formulation.task.max_target_tokens, self.pretrained.context],
        }

    def collate(self, documents: Sequence[Encoded]) -> Batch:
        """Lay sources and targets end to end, on the model's device."""
        model = self.pretrained.model
        return collate_pair(documents, model.config.decoder_start_token_id).to(model.device)

    def cut(self, documents: Sequence[Encoded], micro_tokens: int) -> list[list[Encoded]]:
        """Cut a step's documents into micro-batches of documents of like length."""
        return cut_for(self.form, documents, micro_tokens)

    def loss(self, documents: Sequence[Encoded]) -> Tensor:
        """Negative log-likelihood of the targets, summed over tokens."""
        return summed(self.loss_together, documents, self.form)

    def loss_together(self, documents: Sequence[Encoded], form: Form) -> Tensor:
        """The same in one batch."""
        if form is Form.flat:
            return flat_pair_loss(self.pretrained.model, self.collate(documents), self.precision, self.pretrained.frozen)
        with computing(self.pretrained.model, self.precision):
            return pair_loss(self.pretrained.model, self.collate(documents))

    def check_fast_path(self, documents: Sequence[Encoded]) -> PathCheck:
        """Compare documents that share a batch with one at a time, and take the fastest form that agrees from now on."""
        found, self.form = check_together(
            self.loss_together, documents, self.pretrained, self.precision, reason_against(self.pretrained.model)
        )
        return found

    def predict(self, examples: Sequence[TextExample]) -> Iterator[tuple[int, TextPrediction]]:
        """Decode a text for each example."""
        sources = [self.source_of(example)[0] for example in examples]
        for place, continuation in generate(
            self.pretrained, sources, self.generation_config(), self.generation.batch_size, self.precision
        ):
            yield place, TextPrediction(examples[place].id, self.prompt.decode(continuation.ids), continuation.finished)

    def limited(self, text: str) -> str:
        """Cut a text to max_new_tokens, for comparing other answers with the model's."""
        ids = self.pretrained.tokenizer(text_target=text, add_special_tokens=False).input_ids
        limit = self.generation.max_new_tokens
        return text if len(ids) <= limit else self.prompt.decode(ids[:limit])

    def settings(self) -> dict[str, Any]:
        """Return the prompt's settings."""
        return self.prompt.settings.to_json()

    def generation_config(self) -> GenerationConfig:
        """Return how texts are decoded."""
        tokenizer = self.pretrained.tokenizer
        return generation_config(
            self.generation, self.pretrained, [tokenizer.eos_token_id], tokenizer.pad_token_id, forced_bos=self.forced_bos
        )


def in_one(example: TextExample) -> TextExample:
    """Return an example with a conversation as one text, its turns in order."""
    if isinstance(example.source, str):
        return example
    return replace(example, source="\n\n".join(turn.content for turn in example.source))

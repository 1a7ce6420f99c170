"""Text in, text out: translation, summarization, generative question answering, instructions."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from llmft.config.schema import Generation, Task
from llmft.data.batch import Batch, collate_decoder
from llmft.data.encode import Encoded
from llmft.data.example import TextExample, TextPrediction
from llmft.data.prompt import Prompt
from llmft.data.row import Row
from llmft.data.template import Template
from llmft.errors import ConfigError, DataError
from llmft.hardware.precision import autocast
from llmft.metrics.intervals import with_interval
from llmft.metrics.score import Score
from llmft.models.forward import PathCheck, check_fast_path, plain_loss, ragged_loss
from llmft.models.generate import generate
from llmft.models.load import Pretrained
from llmft.tasks.bound import BoundTask, apply_row


class TextToText:
    """The formulation for decoders: the prompt is context, the answer and its end token carry the loss.

    `fast` tells whether several documents may share a forward pass; it is set once the paths were compared.
    """

    def __init__(
        self, task: Task, bound: BoundTask, pretrained: Pretrained, generation: Generation, precision: torch.dtype, seed: int
    ):
        self.task = task
        self.bound = bound
        self.pretrained = pretrained
        self.generation = generation
        self.precision = precision
        self.seed = seed
        self.fast = False
        self.prompt = Prompt(task, pretrained.tokenizer)
        self.source = Template(task.source, "task.source")
        self.target = Template(task.target, "task.target")
        self.references = Template(task.references, "task.references") if task.references else None
        self.frame = len(self.prompt.prompt_ids(""))  # tokens that the prompt adds around a source
        context = pretrained.context
        if context and self.frame + generation.max_new_tokens >= context:
            raise ConfigError(
                f"generation.max_new_tokens={generation.max_new_tokens} leaves no room for a source: the model reads {context} "
                f"tokens, {self.frame} of them are the prompt. Lower it."
            )

    def examples(self, rows: Iterable[Row]) -> Iterator[TextExample]:
        """Fill the templates with each row. Raises DataError for a row without target."""
        for number, row in enumerate(apply_row(rows, self.bound.row)):
            targets = self.target.fill_all(row)
            if not targets or not targets[0].strip():
                raise DataError(
                    f"{row.where}: the target is empty; expected text in {self.task.target}. Fix task.target or the data."
                )
            if self.references:
                targets = targets[:1] + [text for text in self.references.fill_all(row) if text != targets[0]]
            yield TextExample(row_id(row, number), self.source.fill(row), tuple(targets), row.where)

    def inputs(self, rows: Iterable[Row]) -> Iterator[TextExample]:
        """Make examples without targets, for prediction."""
        for number, row in enumerate(apply_row(rows, self.bound.row)):
            yield TextExample(row_id(row, number), self.source.fill(row), (), row.where)

    def prompt_of(self, example: TextExample, room: int) -> tuple[list[int], int]:
        """Return the prompt's ids with `room` tokens of the context left for the answer, and how many source tokens were cut."""
        limits: list[int | None] = [self.task.max_source_tokens]
        if self.pretrained.context:
            limits.append(max(1, self.pretrained.context - self.frame - room))
        limit = min((value for value in limits if value is not None), default=None)
        source, cut = example.source, 0
        if isinstance(source, str):
            source, cut = self.prompt.shorten(source, limit, example.where)
        return self.prompt.prompt_ids(source), cut

    def encode(self, example: TextExample) -> Encoded:
        """Tokenise prompt and answer. An answer that is too long for task.max_target_tokens or the context leaves no tokens."""
        answer = self.prompt.target_ids(example.targets[0])
        room = self.pretrained.context - self.frame if self.pretrained.context else len(answer) + 1
        if len(answer) > (self.task.max_target_tokens or len(answer)) or len(answer) >= room:
            return Encoded(example.id, np.empty(0, np.int32), np.empty(0, np.bool_), None, example.where)
        prompt, cut = self.prompt_of(example, room=max(len(answer), self.generation.max_new_tokens))
        mask = np.arange(len(prompt) + len(answer)) >= len(prompt)
        return Encoded(example.id, np.array(prompt + answer, np.int32), mask, None, example.where, cut)

    def collate(self, documents: Sequence[Encoded]) -> Batch:
        """Lay documents end to end, on the model's device."""
        return collate_decoder(documents).to(self.pretrained.model.device)

    def loss(self, documents: Sequence[Encoded]) -> Tensor:
        """Negative log-likelihood of the answers, summed over tokens."""
        path = ragged_loss if self.fast else plain_loss
        with autocast(self.pretrained.model.device, self.precision):
            return path(self.pretrained.model, self.collate(documents))

    def check_fast_path(self, documents: Sequence[Encoded]) -> PathCheck:
        """Compare the fast path with the plain one on a few documents, and take it from now on if they agree."""
        with autocast(self.pretrained.model.device, self.precision):
            found = check_fast_path(self.pretrained.model, self.collate(documents), self.precision)
        self.fast = found.fast
        return found

    def predict(self, examples: Sequence[TextExample]) -> Iterator[tuple[int, TextPrediction]]:
        """Decode an answer for each example; yield it with the example's place, as batches finish."""
        prompts = [self.prompt_of(example, room=self.generation.max_new_tokens)[0] for example in examples]
        model, prompt = self.pretrained.model, self.prompt
        for place, continuation in generate(model, prompts, self.generation, prompt.end_ids, prompt.pad_id, self.precision):
            yield place, TextPrediction(examples[place].id, prompt.decode(continuation.ids), continuation.finished)

    def limited(self, text: str) -> str:
        """Cut a text to max_new_tokens, for comparing other answers with the model's."""
        ids = self.pretrained.tokenizer(text, add_special_tokens=False).input_ids
        limit = self.generation.max_new_tokens
        return text if len(ids) <= limit else self.prompt.decode(ids[:limit])

    def score(self, predictions: Sequence[str], examples: Sequence[TextExample]) -> list[Score]:
        """Score predicted texts against the references; an empty prediction counts as wrong, never as absent."""
        references = [example.targets for example in examples]
        scores = [score for metric in self.bound.metrics for score in metric.measure(predictions, references)]
        return [with_interval(score, self.seed) for score in scores]


def row_id(row: Row, number: int) -> str:
    """Return the row's own id, or else its number within the split, from 0."""
    value = row.fields.get("id")
    return str(value) if isinstance(value, str | int) and value != "" else str(number)

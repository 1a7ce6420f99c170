"""Extractive question answering on encoders: every token of a window is scored as the answer's first and as its last."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig

from llmft.config.schema import Generation
from llmft.data.encode import Encoded
from llmft.data.example import SpanExample, SpanPrediction
from llmft.models.load import Head, Pretrained
from llmft.models.padded import pad, span_logits
from llmft.models.path_check import PathCheck
from llmft.models.ragged.encoder import encoding, reason_against
from llmft.runs import signals
from llmft.tasks.learn.reading import reading
from llmft.tasks.learn.span_search import Scored, choose_answer
from llmft.tasks.learn.span_windows import Window, Windower
from llmft.tasks.learn.together import Form, check_together, cut_for, summed
from llmft.tasks.span import Span

# B windows of a batch, T tokens of the longest


class SpanEncoder:
    """An encoder that learns where in a context the answer to a question stands."""

    head = Head.span
    unit = "windows"

    def __init__(self, formulation: Span, pretrained: Pretrained, generation: Generation, precision: torch.dtype):
        self.formulation = formulation
        self.pretrained = pretrained
        self.generation = generation
        self.precision = precision
        self.form = Form.alone
        self.sharing = False  # nothing is shared here
        task = formulation.task
        limits = [limit for limit in (task.max_source_tokens, pretrained.context) if limit is not None]
        self.windower = Windower(pretrained.tokenizer, min(limits, default=None), task.overlap, task.truncation)

    def encode(self, example: SpanExample) -> Iterator[Encoded]:
        """Cut an example into windows, all of which are trained on; one without the whole answer points to no answer.

        Of several gold answers the first is learnt.
        """
        windows, cut = self.windower.windows(example.question, example.context, example.where)
        for number, window in enumerate(windows):
            labels = (window.no_answer, window.no_answer)
            if example.targets:
                labels = window.tokens_of(*answer_limits(example))
            yield document_of(example, window, labels, source_cut=cut if number == 0 else 0)

    def ahead(self, examples: Sequence[SpanExample]) -> None:
        """Tokenise in bulk what `encode` will ask for."""
        self.windower.ahead((example.question, example.context) for example in examples)

    def encoding(self) -> dict[str, Any]:
        """Return the windows' length and what happens to a question that is too long."""
        return {"window": self.windower.length, "truncation": self.formulation.task.truncation.value}

    def cut(self, documents: Sequence[Encoded], micro_tokens: int) -> list[list[Encoded]]:
        """Cut a step's documents into micro-batches of documents of like length."""
        return cut_for(self.form, documents, micro_tokens)

    def loss(self, documents: Sequence[Encoded]) -> Tensor:
        """Mean of the cross-entropies of start and end, summed over windows."""
        return summed(self.loss_together, documents, self.form)

    def loss_together(self, documents: Sequence[Encoded], form: Form) -> Tensor:
        """The same in one batch."""
        start_BT, end_BT, mask_BT = self.logits(documents, form)
        labels_B2 = torch.tensor([[int(place) for place in each.labels] for each in documents], device=mask_BT.device)
        return span_loss(start_BT, end_BT, mask_BT, labels_B2)

    def logits(self, documents: Sequence[Encoded], form: Form) -> tuple[Tensor, Tensor, Tensor]:
        """Return the scores of starts and of ends, and the mask of what is no padding."""
        model = self.pretrained.model
        inputs = pad(documents, self.pretrained.tokenizer.pad_token_id or 0, model.device, model)
        with encoding(model, inputs, self.precision, form is Form.flat, frozen=self.pretrained.frozen):
            start_BT, end_BT = span_logits(model, inputs)
        return start_BT.float(), end_BT.float(), inputs["attention_mask"].bool()

    def check_fast_path(self, documents: Sequence[Encoded]) -> PathCheck:
        """Compare documents that share a batch with one at a time, and take the fastest form that agrees from now on."""
        found, self.form = check_together(
            self.loss_together, documents, self.pretrained, self.precision, reason_against(self.pretrained.model)
        )
        return found

    def predict(self, examples: Sequence[SpanExample]) -> Iterator[tuple[int, SpanPrediction]]:
        """Score the windows of all examples, those of similar length together, and choose an answer once an example's are done."""
        task = self.formulation.task
        windows = [self.windower.windows(each.question, each.context, each.where)[0] for each in examples]
        places = [(row, number) for row, found in enumerate(windows) for number in range(len(found))]
        places.sort(key=lambda place: (-len(windows[place[0]][place[1]]), place))
        done: dict[int, dict[int, Scored]] = defaultdict(dict)
        for first in range(0, len(places), self.generation.batch_size):
            batch = places[first : first + self.generation.batch_size]
            signals.check()
            asked = [windows[row][number] for row, number in batch]
            documents = [document_of(examples[row], window) for (row, _), window in zip(batch, asked, strict=True)]
            for (row, number), window, (starts, ends) in zip(batch, asked, self.score(documents), strict=True):
                done[row][number] = Scored(window, starts, ends)
                if len(done[row]) == len(windows[row]):
                    in_order = [found for _, found in sorted(done.pop(row).items())]
                    yield row, choose_answer(examples[row], in_order, task.max_answer_tokens, task.no_answer)

    def score(self, documents: Sequence[Encoded]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Score each token of a batch as an answer's first and as its last, in float64."""
        with reading(self.pretrained, self.precision):
            start_BT, end_BT, _ = self.logits(documents, Form.padded)
        starts, ends = start_BT.double().cpu().numpy(), end_BT.double().cpu().numpy()
        return [(starts[row, : len(each)], ends[row, : len(each)]) for row, each in enumerate(documents)]

    def settings(self) -> dict[str, Any]:
        """Return what windows and answers depend on."""
        task = self.formulation.task
        return {
            "window": self.windower.length,
            "overlap": task.overlap,
            "max_answer_tokens": task.max_answer_tokens,
            "no_answer": task.no_answer,
        }

    def generation_config(self) -> GenerationConfig | None:
        """Return None: nothing is written."""
        return None


def answer_limits(example: SpanExample) -> tuple[int, int]:
    """Return the characters of the first gold answer, from start up to end, without white space around it."""
    answer, start = example.targets[0], example.starts[0]
    first = start + len(answer) - len(answer.lstrip())
    return first, first + len(answer.strip())


def document_of(example: SpanExample, window: Window, labels: tuple[float, ...] = (), source_cut: int = 0) -> Encoded:
    """Make a document of a window; the mask marks the context, whose tokens may be an answer's."""
    return Encoded(example.id, window.ids_T, window.context_T, None, example.where, 1, source_cut, labels, window.second)


def span_loss(start_BT: Tensor, end_BT: Tensor, mask_BT: Tensor, labels_B2: Tensor) -> Tensor:
    """Half the cross-entropy of the starts plus half that of the ends, summed over windows (Devlin et al. 2019).

    Padding is no place for an answer: it is masked, so a window's loss does not depend on what shares its batch.
    """
    start_BT, end_BT = (each.masked_fill(~mask_BT, float("-inf")) for each in (start_BT, end_BT))
    starts = cross_entropy(start_BT, labels_B2[:, 0], reduction="sum")
    return (starts + cross_entropy(end_BT, labels_B2[:, 1], reduction="sum")) / 2

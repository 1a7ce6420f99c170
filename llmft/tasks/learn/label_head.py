"""Labels from all three families: the model reads the text once, a head on top of it scores the classes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from llmft.config.schema import Generation, LabelKind
from llmft.data.ahead import Ahead
from llmft.data.encode import Encoded
from llmft.data.example import LabelExample, LabelPrediction
from llmft.data.prompt import filled
from llmft.data.shorten import may_fit, must_be_counted, shorten
from llmft.errors import ModelError
from llmft.models.family import Family
from llmft.models.head import Head
from llmft.models.load import Pretrained
from llmft.models.padded import label_logits, pad
from llmft.models.path_check import PathCheck
from llmft.models.ragged.encoder import encoding, first_tokens, reason_against
from llmft.tasks.label import Label
from llmft.tasks.learn.reading import reading
from llmft.tasks.learn.together import Form, check_together, cut_for, summed

# B texts of a batch, C classes (1 for a number)


class LabelHead:
    """A model that learns to choose labels.

    Encoders read a pair of texts as pairs, decoders as task.prompt has it, without a chat template; encoder-decoders as pairs,
    or as task.encoder_prompt has it.
    """

    head = Head.label
    unit = "texts"

    def __init__(self, formulation: Label, pretrained: Pretrained, generation: Generation, precision: torch.dtype):
        self.formulation = formulation
        self.pretrained = pretrained
        self.generation = generation
        self.precision = precision
        self.form = Form.alone
        self.sharing = False  # nothing is shared here
        self.kind = formulation.task.label_kind
        config, tokenizer = pretrained.model.config, pretrained.tokenizer
        if not formulation.labels and self.kind is not LabelKind.value:
            names: Any = config.id2label
            formulation.labels = tuple(names[place] for place in sorted(names))
        self.text_ids = Ahead(tokenizer, add_special_tokens=False, verbose=False)
        self.made: dict[tuple[str, str | None], tuple[list[int], list[int]]] = {}
        texts = ("a",) if formulation.task.context is None else ("a", "a")
        own = sum(len(self.text_ids(text)) for text in texts)
        self.frame = len(self.read("a", *texts[1:])[0]) - own  # tokens around a text, or around and between two
        # what the saved model needs, so that transformers finds the last token of a text by itself: it looks for padding
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        tokenizer.padding_side = "right"
        if config.pad_token_id is None:
            config.pad_token_id = tokenizer.pad_token_id
        if pretrained.family is Family.encoder_decoder and tokenizer.eos_token_id is None:
            raise ModelError(
                f"{pretrained.folder}: the tokenizer has no end token, where an encoder-decoder is asked for the label; set "
                "eos_token in its tokenizer_config.json"
            )

    def read(self, source: str, context: str | None = None) -> tuple[list[int], int]:
        """Return a text's token ids, special tokens included, and where the second text of a pair begins (0: nowhere)."""
        tokenizer, family = self.pretrained.tokenizer, self.pretrained.family
        made = self.made.get(self.asked(source, context))
        if made is None:
            found = tokenizer(*self.asked(source, context), return_token_type_ids=True, verbose=False)
            made = found.input_ids, found.token_type_ids
        ids, types, end = list(made[0]), made[1], tokenizer.eos_token_id
        if family is Family.encoder_decoder and ids[-1:] != [end]:
            ids.append(end)  # the place where the label is asked for
        return ids or [end or 0], types.index(1) if 1 in types else 0  # nothing cannot be read

    def asked(self, source: str, context: str | None) -> tuple[str, str | None]:
        """Return what the tokenizer is given: one text, or the two of a pair."""
        task = self.formulation.task
        prompts = {Family.decoder: task.prompt, Family.encoder_decoder: task.encoder_prompt}
        prompt = prompts.get(self.pretrained.family)
        return (source, context) if prompt is None else (filled(prompt, source, context), None)

    def ahead(self, examples: Sequence[LabelExample]) -> None:
        """Tokenise in bulk what `encode` will ask for; but a pair of which a text is empty, which is none to a tokenizer."""
        limits = (self.formulation.task.max_source_tokens, self.pretrained.context)
        limit = min((each for each in limits if each), default=None)
        texts = [text for each in examples for text in (each.source, each.context or "") if must_be_counted(text, limit)]
        self.text_ids.make(
            [*(text for text in texts if may_fit(text, limit)), *(each.source for each in examples if each.context)]
        )
        fitting = [each for each in examples if may_fit(each.source, limit) and may_fit(each.context or "", limit)]
        asked = dict.fromkeys(self.asked(each.source, each.context) for each in fitting)
        self.made = {}
        for pairs in ([each for each in asked if each[1] is None], [each for each in asked if each[1] and each[0]]):
            if pairs:
                first, second = zip(*pairs, strict=True)
                whole = (list(first),) if pairs[0][1] is None else (list(first), list(second))
                found = self.pretrained.tokenizer(*whole, return_token_type_ids=True, verbose=False)
                self.made |= dict(zip(pairs, zip(found.input_ids, found.token_type_ids, strict=True), strict=True))

    def fit(self, example: LabelExample) -> tuple[str, str | None, int]:
        """Cut what is too long for task.max_source_tokens or the model; return both texts and how many tokens were cut.

        Of a pair the second text is cut, and the first only where it fills the model's context by itself.
        """
        task, tokenizer, limit = self.formulation.task, self.pretrained.tokenizer, self.pretrained.context

        def cut_to(text: str, other: str | None, most: int | None) -> tuple[str, int]:
            left = None
            if limit is not None:
                left = limit - self.frame - len(self.text_ids(other or ""))
            room = min((each for each in (most, left) if each is not None), default=None)
            most = None if room is None else max(1, room)
            return shorten(tokenizer, text, most, task.truncation, example.where, self.text_ids)

        if example.context is None:
            source, cut = cut_to(example.source, None, task.max_source_tokens)
            return source, None, cut
        context, cut = cut_to(example.context, example.source, task.max_source_tokens)
        source, more = cut_to(example.source, context, None)
        return source, context, cut + more

    def encode(self, example: LabelExample) -> Iterator[Encoded]:
        """Tokenise a text with its labels as class places: always one document."""
        source, context, cut = self.fit(example)
        ids, second = self.read(source, context)
        yield Encoded(
            example.id,
            np.array(ids, np.int32),
            np.zeros(len(ids), np.bool_),
            None,
            example.where,
            units=1,
            source_cut=cut,
            labels=self.places(example.targets),
            second=second,
        )

    def places(self, targets: Sequence[str]) -> tuple[float, ...]:
        """Return labels as the loss reads them: class places, or a number."""
        if self.kind is LabelKind.value:
            return tuple(float(text) for text in targets)
        return tuple(float(self.formulation.labels.index(label)) for label in targets)

    def encoding(self) -> dict[str, Any]:
        """Return the prompts, the classes and the limits."""
        return self.settings() | {"context": self.pretrained.context}

    def cut(self, documents: Sequence[Encoded], micro_tokens: int) -> list[list[Encoded]]:
        """Cut a step's documents into micro-batches of documents of like length."""
        return cut_for(self.form, documents, micro_tokens)

    def loss(self, documents: Sequence[Encoded]) -> Tensor:
        """Cross-entropy, binary cross-entropy (mean over classes) or squared error of each text, summed over texts."""
        return summed(self.loss_together, documents, self.form)

    def loss_together(self, documents: Sequence[Encoded], form: Form) -> Tensor:
        """The same in one batch."""
        logits_BC = self.logits(documents, form)
        device = logits_BC.device
        if self.kind is LabelKind.value:
            values_B = torch.tensor([document.labels[0] for document in documents], device=device)
            return F.mse_loss(logits_BC[:, 0], values_B, reduction="sum")
        places = [[int(place) for place in document.labels] for document in documents]
        if self.kind is LabelKind.single:
            return F.cross_entropy(logits_BC, torch.tensor(places, device=device)[:, 0], reduction="sum")
        wanted_BC = torch.zeros_like(logits_BC)
        for row, chosen in enumerate(places):
            wanted_BC[row, chosen] = 1.0
        return F.binary_cross_entropy_with_logits(logits_BC, wanted_BC, reduction="none").mean(1).sum()

    def logits(self, documents: Sequence[Encoded], form: Form) -> Tensor:
        """Return the head's scores (B, C) in float32."""
        model = self.pretrained.model
        inputs = pad(documents, model.config.pad_token_id or 0, model.device, model)
        with encoding(model, inputs, self.precision, form is Form.flat, first_tokens(inputs), self.pretrained.frozen):
            return label_logits(model, self.pretrained.family, inputs).float()

    def check_fast_path(self, documents: Sequence[Encoded]) -> PathCheck:
        """Compare documents that share a batch with one at a time, and take the fastest form that agrees from now on."""
        found, self.form = check_together(
            self.loss_together, documents, self.pretrained, self.precision, reason_against(self.pretrained.model)
        )
        return found

    def predict(self, examples: Sequence[LabelExample]) -> Iterator[tuple[int, LabelPrediction]]:
        """Choose each text's labels: the most probable class, all classes from one half on, or the number."""
        documents = [next(self.encode(replace(each, targets=()))) for each in examples]
        order = sorted(range(len(documents)), key=lambda place: -len(documents[place]))
        size = self.generation.batch_size
        for places in (order[start : start + size] for start in range(0, len(order), size)):
            with reading(self.pretrained, self.precision):
                logits_BC = self.logits([documents[place] for place in places], Form.padded).cpu()
            yield from ((place, self.chosen(examples[place].id, row)) for place, row in zip(places, logits_BC, strict=True))

    def chosen(self, id: str, logits_C: Tensor) -> LabelPrediction:
        """Return what the scores of a text say; numbers keep the digits that float32 has."""
        if self.kind is LabelKind.value:
            return LabelPrediction(id, (str(logits_C[0].numpy()),), {})
        found_C = logits_C.sigmoid() if self.kind is LabelKind.multi else logits_C.softmax(-1)
        known = {name: float(str(value)) for name, value in zip(self.formulation.labels, found_C.numpy(), strict=True)}
        if self.kind is LabelKind.multi:
            return LabelPrediction(id, tuple(name for name, value in known.items() if value >= 0.5), known)
        return LabelPrediction(id, (self.formulation.labels[int(found_C.argmax())],), known)

    def settings(self) -> dict[str, Any]:
        """Return the prompts, the classes and the limit."""
        task = self.formulation.task
        return {
            "prompt": task.prompt,
            "encoder_prompt": task.encoder_prompt,
            "label_kind": self.kind.value,
            "labels": list(self.formulation.labels),
            "max_source_tokens": task.max_source_tokens,
            "truncation": task.truncation.value,
        }

    def generation_config(self) -> None:
        """Return nothing: a label is not written."""

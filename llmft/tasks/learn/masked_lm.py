"""Masked language modelling on encoders: some tokens of a text are hidden, and predicted from all others."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmft.config.schema import Generation
from llmft.data.ahead import Ahead
from llmft.data.encode import Encoded
from llmft.data.example import DocumentExample, DocumentPrediction
from llmft.errors import ConfigError, ModelError
from llmft.models.head import Head
from llmft.models.load import Pretrained
from llmft.models.padded import masked_loss, pad
from llmft.models.path_check import PathCheck
from llmft.models.ragged.encoder import encoding, reason_against
from llmft.tasks.language_model import LanguageModel
from llmft.tasks.learn.reading import reading
from llmft.tasks.learn.together import Form, check_together, cut_for, summed
from llmft.tasks.learn.windows import cut_windows

HIDDEN = 0.15
"""Share of a window's tokens that is predicted; 80 % of them become the mask, 10 % a random token, 10 % stay as they are
(Devlin et al. 2019, arXiv:1810.04805, section 3.1)."""
MASKED, REPLACED = 0.8, 0.9


class MaskedLM:
    """An encoder that learns to fill gaps.

    A text is tokenised once and whole and read in windows of task.max_source_tokens, or of the model's context, with the
    tokenizer's special tokens around each. Scores are pseudo-likelihoods: each token is masked once, and predicted from all
    others of its window (Salazar et al. 2020, arXiv:1910.14659).
    """

    head = Head.masked
    unit = "tokens"

    def __init__(self, formulation: LanguageModel, pretrained: Pretrained, generation: Generation, precision: torch.dtype):
        self.formulation = formulation
        self.pretrained = pretrained
        self.generation = generation
        self.precision = precision
        self.form = Form.alone
        self.sharing = False  # nothing is shared here
        task, tokenizer = formulation.task, pretrained.tokenizer
        if tokenizer.mask_token_id is None:
            raise ModelError(
                f"{pretrained.folder}: the tokenizer has no mask token; set mask_token in its tokenizer_config.json"
            )
        self.before, self.behind = frame_of(tokenizer)
        frame = len(self.before) + len(self.behind)
        context = pretrained.context - frame if pretrained.context else None
        window = min((each for each in (task.max_source_tokens, context) if each), default=None)
        if window is None:
            raise ConfigError(
                f"task.max_source_tokens=null: {pretrained.folder.name} says nothing on how much it reads. Set it, to 512 for example."
            )
        if window < 2 or task.overlap >= window:
            raise ConfigError(
                f"task.overlap={task.overlap} of a window of {window} tokens leaves nothing to predict. Raise task.max_source_tokens"
                f"{f' (the model reads {context})' if context else ''}, or lower the overlap."
            )
        self.window = formulation.window = window
        self.text_ids = Ahead(tokenizer, add_special_tokens=False, verbose=False)
        self.ids_with_gaps = Ahead(tokenizer, add_special_tokens=False, verbose=False, split_special_tokens=False)
        # what the vocabulary does not know is part of the text: its bytes count, so it is predicted like any token
        self.special = np.array(sorted(set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}), np.int32)

    def ids_of(self, text: str, gaps: bool = False) -> np.ndarray:
        """Return a text's token ids, without special tokens around it; `gaps`: a mask token in it is one."""
        ids_of = self.ids_with_gaps if gaps else self.text_ids
        return np.array(ids_of(text), np.int32)

    def ahead(self, examples: Sequence[DocumentExample]) -> None:
        """Tokenise in bulk what `encode` will ask for."""
        self.text_ids.make(example.source for example in examples)

    def framed(self, ids: np.ndarray, example: DocumentExample) -> Encoded:
        """Return a window with the special tokens around it; the mask tells which of its tokens can be hidden."""
        ids = np.concatenate([self.before, ids, self.behind]).astype(np.int32)
        mask = ~np.isin(ids, self.special)
        units = max(1, round(HIDDEN * int(mask.sum()))) if mask.any() else 0
        return Encoded(example.id, ids, mask, None, example.where, units=units)

    def encode(self, example: DocumentExample) -> Iterator[Encoded]:
        """Tokenise a text into windows, one after the other. `units` is how many tokens of a window will be hidden."""
        ids = self.ids_of(example.source)
        for window in cut_windows(len(ids), self.window, overlap=0):
            yield self.framed(ids[window.start : window.stop], example)
        if not len(ids):
            yield Encoded(example.id, ids, np.empty(0, np.bool_), None, example.where, units=0)

    def encoding(self) -> dict[str, Any]:
        """Return the window's length and the share of hidden tokens."""
        return {"window": self.window, "hidden": HIDDEN}

    def cut(self, documents: Sequence[Encoded], micro_tokens: int) -> list[list[Encoded]]:
        """Cut a step's documents into micro-batches of documents of like length."""
        return cut_for(self.form, documents, micro_tokens)

    def loss(self, documents: Sequence[Encoded]) -> Tensor:
        """Negative log-likelihood of hidden tokens, summed; others are hidden each time."""
        return summed(self.loss_together, documents, self.form)

    def loss_together(self, documents: Sequence[Encoded], form: Form) -> Tensor:
        """The same in one batch.

        What is hidden is drawn from torch's generator for the CPU, whose state checkpoints hold and validation sets.
        """
        hidden = [self.hide(document) for document in documents]
        changed = [ids for ids, _ in hidden]
        return self.loss_of(documents, changed, [places for _, places in hidden], form)

    def hide(self, document: Encoded) -> tuple[np.ndarray, np.ndarray]:
        """Return a window with some tokens hidden, and their places."""
        tokenizer = self.pretrained.tokenizer
        open_to_it = np.flatnonzero(document.loss_mask)
        places = np.sort(open_to_it[torch.randperm(len(open_to_it))[: document.units].numpy()])
        lot = torch.rand(len(places)).numpy()
        random = torch.randint(len(tokenizer), (len(places),)).numpy()
        ids = document.ids.copy()
        ids[places] = np.where(lot < MASKED, tokenizer.mask_token_id, np.where(lot < REPLACED, random, ids[places]))
        return ids, places

    def loss_of(
        self, documents: Sequence[Encoded], changed: Sequence[np.ndarray], places: Sequence[np.ndarray], form: Form
    ) -> Tensor:
        """Negative log-likelihood of the documents' own tokens at `places`, where the model reads `changed` instead of them."""
        model = self.pretrained.model
        read = [
            Encoded(each.id, ids, each.loss_mask, None, each.where, each.units)
            for each, ids in zip(documents, changed, strict=True)
        ]
        inputs = pad(read, self.pretrained.tokenizer.pad_token_id or 0, model.device, model)
        width = inputs["input_ids"].shape[1]
        positions = np.concatenate([row * width + found for row, found in enumerate(places)])
        targets = np.concatenate([each.ids[found] for each, found in zip(documents, places, strict=True)])
        positions_M = torch.from_numpy(positions.astype(np.int64)).to(model.device)
        targets_M = torch.from_numpy(targets.astype(np.int64)).to(model.device)
        with encoding(model, inputs, self.precision, form is Form.flat, positions_M, self.pretrained.frozen):
            return masked_loss(model, inputs, positions_M, targets_M)

    def check_fast_path(self, documents: Sequence[Encoded]) -> PathCheck:
        """Compare documents that share a batch with one at a time, and take the fastest form that agrees from now on."""
        found, self.form = check_together(
            self.loss_together, documents, self.pretrained, self.precision, reason_against(self.pretrained.model)
        )
        return found

    def predict(self, examples: Sequence[DocumentExample]) -> Iterator[tuple[int, DocumentPrediction]]:
        """Measure each text, and fill the gaps of those that ask for it: each mask token with what is most probable there."""
        for place, example in enumerate(examples):
            ids = self.ids_of(example.source, gaps=example.continued)
            nll, tokens = 0.0, 0
            for window in cut_windows(len(ids), self.window, self.formulation.task.overlap):
                document = self.framed(ids[window.start : window.stop], example)
                first = len(self.before) + window.new - window.start
                scored = [at for at in np.flatnonzero(document.loss_mask).tolist() if at >= first]
                nll += self.measured(document, scored)
                tokens += len(scored)
            text, finished = (self.completed(example, ids), "stop") if example.continued else ("", "")
            size = len(example.source.encode())
            yield place, DocumentPrediction(example.id, nll, tokens, size, text, finished, pseudo=True)

    def measured(self, document: Encoded, scored: Sequence[int]) -> float:
        """Return the negative log-likelihood in nats of the tokens at `scored`, each of them masked by itself."""
        nll, size = 0.0, self.generation.batch_size
        for start in range(0, len(scored), size):
            places = [np.array([place]) for place in scored[start : start + size]]
            changed = [document.ids.copy() for _ in places]
            for ids, [place] in zip(changed, places, strict=True):
                ids[place] = self.pretrained.tokenizer.mask_token_id
            with reading(self.pretrained, self.precision):
                nll += self.loss_of([document] * len(places), changed, places, Form.padded).item()
        return nll

    def completed(self, example: DocumentExample, ids: np.ndarray) -> str:
        """Return a text with its mask tokens filled, all at once; everything else stays as it was written."""
        tokenizer, model = self.pretrained.tokenizer, self.pretrained.model
        words = []
        for window in cut_windows(len(ids), self.window, overlap=0):
            document = self.framed(ids[window.start : window.stop], example)
            gaps = torch.from_numpy(np.flatnonzero(document.ids == tokenizer.mask_token_id))
            if len(gaps):
                with reading(self.pretrained, self.precision):
                    logits = model(**pad([document], 0, model.device, model)).logits[0, gaps.to(model.device)]
                words += [str(tokenizer.decode([token])).strip().removeprefix("##") for token in logits.argmax(-1).tolist()]
        texts = example.source.split(tokenizer.mask_token)
        assert len(texts) == len(words) + 1, f"{example.where}: {len(texts) - 1} gaps in the text, {len(words)} in its tokens"
        return "".join(text + word for text, word in zip(texts, [*words, ""], strict=True))

    def settings(self) -> dict[str, Any]:
        """Return how a text is cut."""
        return {"max_source_tokens": self.window, "overlap": self.formulation.task.overlap}

    def generation_config(self) -> None:
        """Return nothing: an encoder does not write."""


def frame_of(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the special tokens that the tokenizer puts before and behind a text."""
    inner = list(tokenizer("a", add_special_tokens=False).input_ids)
    whole = list(tokenizer("a").input_ids)
    start = next(place for place in range(len(whole)) if whole[place : place + len(inner)] == inner)
    return whole[:start], whole[start + len(inner) :]

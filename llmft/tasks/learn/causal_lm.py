"""Language modelling on decoders: each token of a text is predicted from those before it in its window."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from llmft.config.schema import Generation
from llmft.data.ahead import Ahead
from llmft.data.encode import Encoded
from llmft.data.example import DocumentExample, DocumentPrediction
from llmft.errors import ConfigError
from llmft.models.forward import plain_loss
from llmft.models.generate import generate, generation_config
from llmft.models.load import Pretrained
from llmft.tasks.language_model import LanguageModel
from llmft.tasks.learn.decoder_passes import DecoderPasses
from llmft.tasks.learn.reading import reading
from llmft.tasks.learn.windows import Window, cut_windows


class CausalLM(DecoderPasses):
    """A decoder that learns to go on with texts.

    A text is tokenised once and whole, without special tokens, and read in windows of task.max_source_tokens, or of the
    model's context. The end token is learnt behind each text, and not scored: it is no part of one.
    """

    def __init__(self, formulation: LanguageModel, pretrained: Pretrained, generation: Generation, precision: torch.dtype):
        super().__init__(pretrained, precision)
        self.formulation = formulation
        self.generation = generation
        task, context = formulation.task, pretrained.context
        window = min((each for each in (task.max_source_tokens, context) if each), default=None)
        if window is None:
            raise ConfigError(
                f"task.max_source_tokens=null: {pretrained.folder.name} says nothing on how much it reads. Set it, to 1024 for example."
            )
        if window < 2 or task.overlap >= window:
            raise ConfigError(
                f"task.overlap={task.overlap} of a window of {window} tokens leaves nothing to predict. Raise task.max_source_tokens"
                f"{f' (the model reads {context})' if context else ''}, or lower the overlap."
            )
        if context and generation.max_new_tokens >= context:
            raise ConfigError(
                f"generation.max_new_tokens={generation.max_new_tokens} leaves no room for a text to go on with: the model reads "
                f"{context} tokens. Lower it."
            )
        self.window = formulation.window = window
        self.text_ids = Ahead(pretrained.tokenizer, add_special_tokens=False, verbose=False)

    def ids_of(self, text: str) -> list[int]:
        """Return a text's token ids."""
        return self.text_ids(text)

    def ahead(self, examples: Sequence[DocumentExample]) -> None:
        """Tokenise in bulk what `encode` will ask for."""
        self.text_ids.make(example.source for example in examples)

    def encode(self, example: DocumentExample) -> Iterator[Encoded]:
        """Tokenise a text into windows that share a token: every token but the first is predicted once, the end token too."""
        ids = np.array(self.ids_of(example.source), np.int32)
        end = self.pretrained.tokenizer.eos_token_id
        if end is not None:
            ids = np.append(ids, np.int32(end))
        if len(ids) < 2:
            yield Encoded(example.id, ids[:0], np.empty(0, np.bool_), None, example.where, units=0)
            return
        for window in cut_windows(len(ids), self.window, overlap=1):
            mask = np.arange(window.start, window.stop) > window.start
            yield Encoded(example.id, ids[window.start : window.stop], mask, None, example.where, units=int(mask.sum()))

    def encoding(self) -> dict[str, Any]:
        """Return the window's length and the end token."""
        return {"window": self.window, "end": self.pretrained.tokenizer.eos_token_id}

    def predict(self, examples: Sequence[DocumentExample]) -> Iterator[tuple[int, DocumentPrediction]]:
        """Measure each text, and go on with those that ask for it.

        Windows overlap by task.overlap. The first token of a text is not scored, nor that of a window without overlap: they
        have no context. Each other token is scored once, with the context that its window gives.
        """
        texts = [self.ids_of(example.source) for example in examples]
        asked = [place for place, example in enumerate(examples) if example.continued]
        continued = dict(zip(asked, self.go_on([texts[place] for place in asked]), strict=True))
        for place, (example, ids) in enumerate(zip(examples, texts, strict=True)):
            nll, tokens = 0.0, 0
            for window in cut_windows(len(ids), self.window, self.formulation.task.overlap):
                if (scored := window.stop - max(window.new, window.start + 1)) > 0:
                    nll += self.measured(ids, window)
                    tokens += scored
            text, finished = continued.get(place, ("", ""))
            yield place, DocumentPrediction(example.id, nll, tokens, len(example.source.encode()), text, finished)

    def measured(self, ids: Sequence[int], window: Window) -> float:
        """Return the negative log-likelihood in nats of a window's new tokens.

        On the plain path, so that scores in training are those of the saved model to the digit.
        """
        places = np.arange(window.start, window.stop)
        document = Encoded("", np.array(ids[window.start : window.stop], np.int32), places >= window.new, None, "", units=0)
        with reading(self.pretrained, self.precision):
            return plain_loss(self.pretrained.model, self.collate([document])).item()

    def go_on(self, texts: Sequence[Sequence[int]]) -> list[tuple[str, str]]:
        """Return what the model writes after each text, and how that ended; of a long text it reads the end."""
        tokenizer, context = self.pretrained.tokenizer, self.pretrained.context
        config = self.generation_config()
        room = min(self.window, context - self.generation.max_new_tokens) if context else self.window
        prompts = [list(ids[-room:]) or [first_of(tokenizer)] for ids in texts]
        found = dict(generate(self.pretrained, prompts, config, self.generation.batch_size, self.precision))
        return [(after(tokenizer, prompt, found[place].ids), found[place].finished) for place, prompt in enumerate(prompts)]

    def settings(self) -> dict[str, Any]:
        """Return how a text is cut."""
        return {"max_source_tokens": self.window, "overlap": self.formulation.task.overlap, "special_tokens": False}

    def generation_config(self) -> GenerationConfig:
        """Return how continuations are decoded."""
        tokenizer = self.pretrained.tokenizer
        ends = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else first_of(tokenizer)
        return generation_config(self.generation, self.pretrained, ends, pad)


def first_of(tokenizer: Any) -> int:
    """Return the token that a text without tokens begins with: any has to be there, and all are masked where they pad."""
    return next((each for each in (tokenizer.bos_token_id, tokenizer.eos_token_id) if each is not None), 0)


def after(tokenizer: Any, prompt: list[int], ids: list[int]) -> str:
    """Return the text of tokens that follow others: by themselves some tokenizers would drop the space before them."""
    before = tokenizer.decode(prompt, skip_special_tokens=True)
    whole = tokenizer.decode([*prompt, *ids], skip_special_tokens=True)
    return whole.removeprefix(before) if whole.startswith(before) else tokenizer.decode(ids, skip_special_tokens=True)

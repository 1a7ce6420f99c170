"""Greedy search and sampling: one text for each source, texts that end making room for sources that wait."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from transformers import GenerationConfig

from llmft.models.decoding.scores import Choice, Rules
from llmft.models.decoding.text import Text
from llmft.runs import signals

# R texts being written, V vocabulary


class Writer(Protocol):
    """A model with the keys and values of the texts it is writing; see `decoder.Prompts` and `pair.Pairs`."""

    refills: bool
    """Whether sources can begin while texts of others are under way."""

    def begin(self, sources: Sequence[Sequence[int]]) -> Tensor:
        """Take in more sources; return the scores (n, V) of the first token after each."""

    def step(self, tokens_R: Tensor) -> Tensor:
        """Append a token to each text; return the scores (R, V) of the next."""

    def keep(self, order: list[int]) -> None:
        """Go on with these sources and their texts only, in this order."""

    def follow(self, parents: list[int]) -> None:
        """Let text i go on from what text `parents[i]` has written, of the same source."""


class Search:
    """Writes the texts of `waiting`, each with its source, at most `rows` side by side."""

    def __init__(
        self,
        writer: Writer,
        config: GenerationConfig,
        waiting: Sequence[tuple[Text, Sequence[int]]],
        rows: int,
        device: torch.device,
    ) -> None:
        self.writer, self.config, self.rows, self.device = writer, config, rows, device
        self.waiting = list(waiting)
        self.texts: list[Text] = []
        self.rules, self.choice = Rules(config, device), Choice(config)

    @property
    def busy(self) -> bool:
        """Whether there is anything left to write."""
        return bool(self.waiting or self.texts)

    def advance(self) -> list[tuple[int, list[int]]]:
        """Write until a text ends; return places and tokens of those that did, the end token with them. Raises Stopped at the next token after a signal."""
        while True:
            signals.check()
            room = self.rows - len(self.texts)
            # a few at a time: reading one prompt alone makes poor use of the machine, an empty row none at all
            if self.waiting and (not self.texts or (self.writer.refills and room >= max(1, self.rows // 4))):
                new, self.waiting = self.waiting[:room], self.waiting[room:]
                scores_RV = self.writer.begin([source for _, source in new])
                first = len(self.texts)
                self.texts += [text for text, _ in new]
                written = self.texts[first:]
            else:
                last = torch.tensor([text.ids[-1] for text in self.texts], device=self.device)
                scores_RV = self.writer.step(last)
                first, written = 0, self.texts
            if ended := self.append(scores_RV, written, first):
                return [(text.place, text.ids) for text in ended]

    def append(self, scores_RV: Tensor, texts: list[Text], first: int) -> list[Text]:
        """Choose the next token of `texts`, whose rows begin at `first`, and take out those that end with it."""
        counts = [len(text.ids) for text in texts]
        if self.rules.any:
            scores_RV = self.rules(scores_RV, [text.given for text in texts], [text.ids for text in texts])
        numbers = [text.uniforms[count] for text, count in zip(texts, counts, strict=True)] if self.choice.sampling else []
        for text, token in zip(texts, self.choice(scores_RV, numbers).tolist(), strict=True):
            text.ids.append(token)
        ends = set(self.config.eos_token_id or ())
        done = [text.ids[-1] in ends or len(text.ids) == self.config.max_new_tokens for text in texts]
        if not any(done):
            return []
        gone = {first + row for row, over in enumerate(done) if over}
        ended = [self.texts[row] for row in sorted(gone)]
        order = filled(len(self.texts), gone)
        self.writer.keep(order)
        self.texts = [self.texts[row] for row in order]
        return ended


def filled(rows: int, gone: set[int]) -> list[int]:
    """Return the rows that stay, those from the end in the places of those that go, so that as few as possible move."""
    staying = rows - len(gone)
    tail = iter([row for row in range(staying, rows) if row not in gone])
    return [next(tail) if row in gone else row for row in range(staying)]

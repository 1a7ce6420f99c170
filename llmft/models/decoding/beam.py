"""Beam search: the `beams` most probable continuations of each source side by side, the best finished one wins.

Scores, order and ends are those of transformers' `generate` for a source alone; a source that is done leaves the batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import GenerationConfig

from llmft.models.decoding.scores import Rules
from llmft.models.decoding.search import Writer, filled
from llmft.models.decoding.text import Text
from llmft.runs import signals

# S sources, B beams, C candidates looked at per source, T tokens of the longest text allowed, V vocabulary

NEVER = -1e9  # the score of what is no candidate; finite, as transformers has it


class BeamSearch:
    """Writes the texts of `waiting`, each with its source, `rows` sources side by side."""

    def __init__(
        self,
        writer: Writer,
        config: GenerationConfig,
        waiting: Sequence[tuple[Text, Sequence[int]]],
        rows: int,
        device: torch.device,
    ) -> None:
        self.writer, self.config, self.rows, self.device = writer, config, rows, device
        self.waiting, self.texts = list(waiting), list[Text]()
        self.rules = Rules(config, device)
        self.beams = config.num_beams
        self.ends = torch.tensor(config.eos_token_id or [], dtype=torch.long, device=device)
        # so many that, whichever end here, `beams` are left to go on
        self.candidates = max(2, 1 + len(self.ends)) * self.beams

    @property
    def busy(self) -> bool:
        """Whether there is anything left to write."""
        return bool(self.waiting or self.texts)

    def advance(self) -> list[tuple[int, list[int]]]:
        """Write until a text ends; return places and tokens of those that did. Raises Stopped at the next token after a signal."""
        while True:
            signals.check()
            if not self.texts:
                new, self.waiting = self.waiting[: self.rows], self.waiting[self.rows :]
                scores = self.writer.begin([source for _, source in new])
                self.texts = [text for text, _ in new]
                self.start()
                scores_RV = scores.repeat_interleave(self.beams, 0)
            else:
                scores_RV = self.writer.step(self.ids_SBT[:, :, self.written - 1].flatten())
            if ended := self.extend(scores_RV):
                return ended

    def start(self) -> None:
        """Begin with empty texts; all but one of each source are no candidates, as they would be equal."""
        shape, device = (len(self.texts), self.beams), self.device
        self.written = 0
        self.ids_SBT = torch.zeros(*shape, self.config.max_new_tokens, dtype=torch.long, device=device)
        self.scores_SB = torch.full(shape, NEVER, device=device)
        self.scores_SB[:, 0] = 0
        self.done_ids_SBT, self.done_scores_SB = self.ids_SBT.clone(), torch.full(shape, NEVER, device=device)
        self.done_lengths_SB = torch.zeros(shape, dtype=torch.long, device=device)
        self.done_SB = torch.zeros(shape, dtype=torch.bool, device=device)
        self.open_S = torch.ones(len(self.texts), dtype=torch.bool, device=device)

    def extend(self, scores_RV: Tensor) -> list[tuple[int, list[int]]]:
        """Go on with the best candidates, keep those that ended, and take out the sources that are done."""
        sources, vocabulary = len(self.texts), scores_RV.shape[1]
        logs_RV = scores_RV.log_softmax(-1)
        if self.rules.any:
            ids = self.ids_SBT[:, :, : self.written].flatten(0, 1).tolist()
            logs_RV = self.rules(logs_RV, [text.given for text in self.texts for _ in range(self.beams)], ids)
        totals = (logs_RV.view(sources, self.beams, -1) + self.scores_SB[:, :, None]).flatten(1)
        scores_SC, places_SC = totals.topk(self.candidates)
        parents_SC = places_SC.div(vocabulary, rounding_mode="floor")
        ids_SCT = self.ids_SBT.gather(1, parents_SC[:, :, None].expand(-1, -1, self.ids_SBT.shape[2]))
        ids_SCT[:, :, self.written] = tokens_SC = places_SC % vocabulary
        self.written += 1
        ended_SC = torch.isin(tokens_SC, self.ends)
        if self.written == self.config.max_new_tokens:
            ended_SC = torch.ones_like(ended_SC)
        left_SC = scores_SC + ended_SC * NEVER
        chosen_SB = left_SC.topk(self.beams)[1]
        self.ids_SBT = taken(ids_SCT, chosen_SB)
        self.scores_SB = left_SC.gather(1, chosen_SB)
        self.finish(scores_SC, ids_SCT, ended_SC)
        over = ~self.open_S | ended_SC.all(1)
        if self.config.early_stopping is True:
            over |= self.done_SB.all(1)
        return self.leave(over.tolist(), parents_SC.gather(1, chosen_SB))

    def finish(self, scores_SC: Tensor, ids_SCT: Tensor, ended_SC: Tensor) -> None:
        """Keep the best texts that have ended, by log-probability over length to the power of the length penalty."""
        config = self.config
        counts_SC = ended_SC.clone()
        counts_SC[:, self.beams :] = False  # the others are there only to go on with
        scores_SC = scores_SC / self.written**config.length_penalty
        if config.early_stopping is True:
            scores_SC = scores_SC + self.done_SB.all(1, keepdim=True) * NEVER
        scores_SC = scores_SC + ~self.open_S[:, None] * NEVER + ~counts_SC * NEVER
        lengths_SC = torch.full_like(counts_SC, self.written, dtype=torch.long)
        self.done_scores_SB, best = torch.cat([self.done_scores_SB, scores_SC], 1).topk(self.beams)
        self.done_ids_SBT = taken(torch.cat([self.done_ids_SBT, ids_SCT], 1), best)
        self.done_lengths_SB = torch.cat([self.done_lengths_SB, lengths_SC], 1).gather(1, best)
        self.done_SB = torch.cat([self.done_SB, counts_SC], 1).gather(1, best)
        # a source is open as long as the best unfinished text may still beat the worst finished one
        hopeful = config.early_stopping == "never" and config.length_penalty > 0
        length = config.max_new_tokens if hopeful else self.written
        possible = self.scores_SB[:, :1] / length**config.length_penalty
        worst = torch.where(self.done_SB, self.done_scores_SB.min(1, keepdim=True)[0], NEVER)
        self.open_S &= (possible > worst).any(1)

    def leave(self, over: list[bool], parents_SB: Tensor) -> list[tuple[int, list[int]]]:
        """Take out the sources marked and let the others' texts go on from their parents; return the former's best texts."""
        gone = {row for row, each in enumerate(over) if each}
        ended = []
        for row in sorted(gone):
            length = int(self.done_lengths_SB[row, 0])
            ended.append((self.texts[row].place, self.done_ids_SBT[row, 0, :length].tolist()))
        order = filled(len(over), gone)
        if gone:
            self.writer.keep(order)
            self.texts = [self.texts[row] for row in order]
            for name in ("ids_SBT", "scores_SB", "done_ids_SBT", "done_scores_SB", "done_lengths_SB", "done_SB", "open_S"):
                setattr(self, name, getattr(self, name)[order])
        parents = parents_SB.tolist()
        self.writer.follow([row * self.beams + beam for row, old in enumerate(order) for beam in parents[old]])
        return ended


def taken(values_SCT: Tensor, places_SB: Tensor) -> Tensor:
    """Return of each source the rows at `places_SB`."""
    return values_SCT.gather(1, places_SB[:, :, None].expand(-1, -1, values_SCT.shape[2]))

"""From the scores of a vocabulary to the next token: what may not be written, penalties, the choice.

Order and meaning are those of transformers' `generate`, whose classes do the work; what is not switched on costs nothing.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation.logits_process import (
    LogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

# R texts, T tokens of the longest so far, V vocabulary


class Rules:
    """What a generation configuration does to the scores (R, V) before a token is chosen."""

    def __init__(self, config: GenerationConfig, device: torch.device) -> None:
        self.config = config
        # these look at what was written so far, or only at the vocabulary, whichever of the tokens is next
        self.always: list[LogitsProcessor] = []
        if config.repetition_penalty not in (None, 1.0):
            self.always.append(RepetitionPenaltyLogitsProcessor(config.repetition_penalty))
        if config.no_repeat_ngram_size:
            self.always.append(NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size))
        if config.bad_words_ids:
            self.always.append(NoBadWordsLogitsProcessor(config.bad_words_ids, config.eos_token_id))
        self.suppress = SuppressTokensLogitsProcessor(config.suppress_tokens, str(device)) if config.suppress_tokens else None
        self.begin = config.begin_suppress_tokens
        self.reads_texts = bool(
            config.repetition_penalty not in (None, 1.0)
            or config.no_repeat_ngram_size
            or any(len(words) > 1 for words in config.bad_words_ids or ())
        )
        self.any = bool(
            self.always or self.suppress or self.begin or config.forced_bos_token_id is not None or config.forced_eos_token_id
        )

    def __call__(self, scores_RV: Tensor, given: Sequence[Sequence[int]], ids: Sequence[Sequence[int]]) -> Tensor:
        """Return the scores after all rules. given: what counts as written before each text; ids: what was written of it."""
        if not self.any:
            return scores_RV
        written = [len(each) for each in ids]
        texts = history(given, ids, scores_RV) if self.reads_texts else scores_RV.new_zeros(len(ids), 1, dtype=torch.long)
        for rule in self.always:
            scores_RV = rule(texts, scores_RV)
        config = self.config
        if config.forced_bos_token_id is not None:
            scores_RV = forced(scores_RV, [count == 0 for count in written], config.forced_bos_token_id)
        if config.forced_eos_token_id is not None:
            last = config.max_new_tokens - 1
            scores_RV = forced(scores_RV, [count == last for count in written], config.forced_eos_token_id)
        if self.suppress is not None:
            scores_RV = self.suppress(texts, scores_RV)
        if self.begin:
            first = 0 if config.forced_bos_token_id is None else 1
            rows = [row for row, count in enumerate(written) if count == first]
            if rows:
                rule = SuppressTokensAtBeginLogitsProcessor(self.begin, texts.shape[1], str(scores_RV.device))
                scores_RV = scores_RV.clone()
                scores_RV[rows] = rule(texts[rows], scores_RV[rows])
        return scores_RV


def history(given: Sequence[Sequence[int]], ids: Sequence[Sequence[int]], scores_RV: Tensor) -> Tensor:
    """Return all tokens so far (R, T) with their ends at the right; what is before a text is a token beyond the vocabulary.

    transformers' rules pass over such a token, so a text's neighbours change nothing.
    """
    width, none = max(len(a) + len(b) for a, b in zip(given, ids, strict=True)), scores_RV.shape[-1]
    rows = [[none] * (width - len(a) - len(b)) + [*a, *b] for a, b in zip(given, ids, strict=True)]
    return torch.tensor(rows, dtype=torch.long, device=scores_RV.device)


def forced(scores_RV: Tensor, rows: Sequence[bool], tokens: int | list[int]) -> Tensor:
    """Return the scores with nothing but `tokens` possible in the rows marked."""
    if not any(rows):
        return scores_RV
    scores_RV = scores_RV.clone()
    marked = torch.tensor(rows, device=scores_RV.device).nonzero()
    scores_RV[marked[:, 0]] = float("-inf")
    scores_RV[marked, torch.tensor(tokens, device=scores_RV.device).view(-1)] = 0
    return scores_RV


class Choice:
    """The next token of each text: the most probable one, or one drawn by its probability."""

    def __init__(self, config: GenerationConfig) -> None:
        self.sampling = bool(config.do_sample)
        self.warpers: list[LogitsProcessor] = []
        if self.sampling:
            if config.temperature not in (None, 1.0):
                self.warpers.append(TemperatureLogitsWarper(config.temperature))
            if config.top_k:
                self.warpers.append(TopKLogitsWarper(config.top_k))
            if config.top_p is not None and config.top_p < 1.0:
                self.warpers.append(TopPLogitsWarper(config.top_p))

    def __call__(self, scores_RV: Tensor, uniforms_R: Sequence[float]) -> Tensor:
        """Return one token for each text; a drawn one is the first whose cumulative probability exceeds the text's number.

        So a text's tokens hang on its own numbers alone and not on who shares its batch.
        """
        if not self.sampling:
            return scores_RV.argmax(-1)
        for warper in self.warpers:
            scores_RV = warper(scores_RV, scores_RV)
        sums_RV = scores_RV.double().softmax(-1).cumsum(-1)
        drawn = torch.tensor(uniforms_R, dtype=torch.float64, device=scores_RV.device)[:, None] * sums_RV[:, -1:]
        return torch.searchsorted(sums_RV, drawn, right=True)[:, 0]

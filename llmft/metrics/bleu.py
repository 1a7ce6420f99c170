"""BLEU of a corpus (Papineni et al. 2002, aclanthology.org/P02-1040) by sacrebleu."""

from collections.abc import Sequence
from dataclasses import replace

from sacrebleu import BLEU

from llmft.config.explain import suggest
from llmft.errors import ConfigError
from llmft.metrics.corpus import measure_corpus
from llmft.metrics.language import language_code
from llmft.metrics.score import Score

TOKENIZERS = {"zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab"}
"""Sacrebleu's choice for a target language; 13a, that of the WMT campaigns, for all others."""
EXTRAS = {"ja-mecab": "ja", "ko-mecab": "ko"}
"""What has to be installed with llmft for a tokenizer."""


def bleu(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    tokenize: str | None = None,
    lowercase: bool = False,
    *,
    language: str | None = None,
) -> list[Score]:
    """Corpus BLEU in 0..100 of raw, that is detokenised, text; several references are used together, not the best of them.

    tokenize: None goes by the target language. For Thai, Lao, Khmer and Burmese, which none of sacrebleu's own covers, char or
    flores200 says more than 13a.
    Values of single rows are sentence BLEU (exponential smoothing, n-gram orders that occur); their mean is not the score.
    Raises ConfigError if there is no such tokenizer, or it is not installed.
    """
    name = tokenize or TOKENIZERS.get(language_code(language) or "", "13a")
    metric = open_bleu(name, lowercase)
    of_row = BLEU(tokenize="none", effective_order=True)  # counts are counted already
    score, whole = measure_corpus("bleu", metric, predictions, references, of_row=of_row)
    if whole is None:
        return [score]
    parts = {"precisions": list(whole.precisions), "brevity_penalty": whole.bp, "length": whole.sys_len}
    return [replace(score, parts=parts | {"reference_length": whole.ref_len})]


def open_bleu(tokenize: str, lowercase: bool) -> BLEU:
    """Return sacrebleu's metric with a tokenizer. Raises ConfigError if that cannot be had."""
    where = f"task.metrics.bleu.tokenize={tokenize}"
    if tokenize not in BLEU.TOKENIZERS:
        known = sorted(BLEU.TOKENIZERS)
        raise ConfigError(f"{where}: no such tokenizer.{suggest(tokenize, known)} Sacrebleu has {', '.join(known)}.")
    try:
        return BLEU(tokenize=tokenize, lowercase=lowercase)
    except (RuntimeError, ImportError, OSError) as error:
        if tokenize not in EXTRAS:
            raise ConfigError(f"{where}: {' '.join(str(error).split())}") from error
        raise ConfigError(
            f"{where}: this tokenizer is not installed; BLEU of Japanese and Korean needs one of its own. "
            f"pip install 'llmft[{EXTRAS[tokenize]}]', or take characters: task.metrics.bleu.tokenize=char"
        ) from error

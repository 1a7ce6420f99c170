"""Translation edit rate (Snover et al. 2006, aclanthology.org/2006.amta-papers.25) by sacrebleu."""

from collections.abc import Sequence
from dataclasses import replace

from sacrebleu import TER

from llmft.metrics.corpus import measure_corpus
from llmft.metrics.language import language_code
from llmft.metrics.score import Score


def ter(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    case_sensitive: bool = False,
    normalized: bool = False,
    no_punct: bool = False,
    asian_support: bool | None = None,
    *,
    language: str | None = None,
) -> list[Score]:
    """Edits, moves of phrases among them, per 100 words of the mean reference, of raw text; lower is better, above 100 is possible.

    Options as sacrebleu's. asian_support: characters instead of words, with normalisation, without which sacrebleu does not
    split them; None: for Chinese and Japanese targets, which have no words to split at spaces.
    Its time grows fast with length: a second or more for a row of 250 words, or characters, that have little in common.
    """
    if asian_support is None:
        asian_support = language_code(language) in ("zh", "ja")
    metric = TER(
        normalized=normalized or asian_support,
        no_punct=no_punct,
        asian_support=asian_support,
        case_sensitive=case_sensitive,
    )
    score, whole = measure_corpus("ter", metric, predictions, references, higher_is_better=False)
    if whole is None:
        return [score]
    return [replace(score, parts={"edits": whole.num_edits, "reference_length": whole.ref_length})]

"""ChrF2 (Popović 2015, aclanthology.org/W15-3049) and chrF2++ (Popović 2017, aclanthology.org/W17-4770) by sacrebleu."""

from collections.abc import Sequence

from sacrebleu import CHRF

from llmft.metrics.corpus import measure_corpus
from llmft.metrics.score import Score

WORD_ORDERS = {"chrf2": 0, "chrf2pp": 2}


def chrf(
    predictions: Sequence[str], references: Sequence[Sequence[str]], lowercase: bool = False, whitespace: bool = False
) -> list[Score]:
    """F2 of character n-grams up to 6 (chrf2), and with words and pairs of words (chrf2pp), in 0..100, of raw text.

    Counts are summed over the corpus, for each row those of its best reference.
    whitespace: count spaces as characters.
    """
    return [
        measure_corpus(name, CHRF(word_order=order, lowercase=lowercase, whitespace=whitespace), predictions, references)[0]
        for name, order in WORD_ORDERS.items()
    ]

"""ROUGE-1/2/L/Lsum by Google's rouge-score (Lin 2004, aclanthology.org/W04-1013), the implementation that papers cite."""

from collections.abc import Sequence
from importlib.metadata import version

from rouge_score.rouge_scorer import RougeScorer

from llmft.metrics.score import Score
from llmft.metrics.sentences import split_sentences

NAMES = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def rouge(predictions: Sequence[str], references: Sequence[Sequence[str]], use_stemmer: bool = True) -> list[Score]:
    """Mean F1 in 0..100, for each prediction the best over its references.

    ROUGE-Lsum compares sentence by sentence: sentences are put on lines of their own first, as its definition wants.
    """
    assert len(predictions) == len(references)
    whole = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=use_stemmer)
    by_line = RougeScorer(["rougeLsum"], use_stemmer=use_stemmer)
    values: dict[str, list[float]] = {name: [] for name in NAMES}
    for prediction, targets in zip(predictions, references, strict=True):
        found = whole.score_multi(targets, prediction)
        found |= by_line.score_multi([lines(target) for target in targets], lines(prediction))
        for name in NAMES:
            values[name].append(100 * found[name].fmeasure)
    stemmer = "yes" if use_stemmer else "no"
    signature = f"rouge-score {version('rouge-score')}|F1 x 100, mean|stemmer:{stemmer}|tokenizer:default|references:best|Lsum:1 sentence a line"
    n = len(predictions)
    return [Score(name, sum(each) / n if n else 0.0, n, signature, per_example=tuple(each)) for name, each in values.items()]


def lines(text: str) -> str:
    """Put each sentence on a line of its own."""
    return "\n".join(split_sentences(text))

"""Trivial answers that a tuned model has to beat."""

from llmft.data.example import Example
from llmft.metrics.sentences import split_sentences


def lead_1(example: Example) -> str:
    """The first sentence of the source: hard to beat in news, and free."""
    text = example.source if isinstance(example.source, str) else example.source[-1].content
    return next(iter(split_sentences(text)), "")


def copy_source(example: Example) -> str:
    """The source itself: what a translation that does nothing would be."""
    return example.source if isinstance(example.source, str) else example.source[-1].content


def no_answer(example: Example) -> str:
    """Nothing: right wherever a question has no answer (SQuAD 2.0's all-null)."""
    return ""

"""Trivial answers that a tuned model has to beat."""

from llmft.data.example import TextExample
from llmft.metrics.sentences import split_sentences


def lead_1(example: TextExample) -> str:
    """The first sentence of the source: hard to beat in news, and free."""
    text = example.source if isinstance(example.source, str) else example.source[-1].content
    return next(iter(split_sentences(text)), "")

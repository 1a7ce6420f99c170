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


def whole_context(example: Example) -> str:
    """All of the context: an answer that holds every other, for question answering; without a context, the source."""
    context = getattr(example, "context", None)
    return copy_source(example) if context is None else context


def no_answer(example: Example) -> str:
    """Nothing: right wherever a question has no answer (SQuAD 2.0's all-null)."""
    return ""

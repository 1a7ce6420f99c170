"""Fitting a source into the tokens there are for it."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from llmft.config.schema import Task
from llmft.data.example import TextExample
from llmft.data.prompt import Asked
from llmft.data.shorten import may_fit, must_be_counted, shorten


def fit_source(
    example: TextExample, task: Task, tokenizer: Any, room: int | None, ids_of: Callable[[str], list[int]]
) -> tuple[TextExample, int]:
    """Cut what is too long for task.max_source_tokens or for `room` tokens; return the example and how many tokens were cut.

    ids_of: the tokenizer without special tokens, which may have been asked ahead for the source and the context.
    Where there is a context, that is what is cut: a question is read whole. Raises DataError where task.truncation is error.
    """
    assert isinstance(example.source, str)
    if example.context is not None and room is not None:
        room -= len(ids_of(example.source))
    limit = min((each for each in (task.max_source_tokens, room) if each is not None), default=None)
    limit = None if limit is None else max(1, limit)
    text, cut = shorten(tokenizer, longer_part(example), limit, task.truncation, example.where, ids_of)
    if text == longer_part(example):
        return example, cut
    return replace(example, source=text) if example.context is None else replace(example, context=text), cut


def longer_part(example: TextExample) -> str:
    """Return what is cut where an example is too long."""
    assert isinstance(example.source, str)
    return example.source if example.context is None else example.context


def texts_ahead(examples: Iterable[TextExample], limit: int | None) -> tuple[list[Asked], list[str]]:
    """Return for which prompts, and for the ids of which texts beside the targets, encoding these examples will ask."""
    asked: list[Asked] = []
    texts: list[str] = []
    for example in examples:
        part = longer_part(example) if isinstance(example.source, str) else ""
        if may_fit(part, limit):
            asked.append((example.source, example.context))
            texts += [part] if must_be_counted(part, limit) else []
        if example.context is not None and isinstance(example.source, str):
            texts.append(example.source)
    return asked, texts

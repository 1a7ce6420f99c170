"""Fitting a source into the tokens there are for it."""

from dataclasses import replace
from typing import Any

from llmft.config.schema import Task
from llmft.data.example import TextExample
from llmft.data.shorten import shorten


def fit_source(example: TextExample, task: Task, tokenizer: Any, room: int | None) -> tuple[TextExample, int]:
    """Cut what is too long for task.max_source_tokens or for `room` tokens; return the example and how many tokens were cut.

    Where there is a context, that is what is cut: a question is read whole. Raises DataError where task.truncation is error.
    """
    assert isinstance(example.source, str)
    if example.context is not None and room is not None:
        room -= len(tokenizer(example.source, add_special_tokens=False).input_ids)
    limit = min((each for each in (task.max_source_tokens, room) if each is not None), default=None)
    limit = None if limit is None else max(1, limit)
    if example.context is None:
        text, cut = shorten(tokenizer, example.source, limit, task.truncation, example.where)
        return replace(example, source=text), cut
    text, cut = shorten(tokenizer, example.context, limit, task.truncation, example.where)
    return replace(example, context=text), cut

"""Predictions for many examples: in order, on disk as they are made, going on where an earlier call stopped."""

from collections.abc import Iterable
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from llmft.data.example import TextExample, TextPrediction
from llmft.hardware.determinism import isolated
from llmft.reports.console import Count
from llmft.runs.journal import Journal
from llmft.tasks.text_to_text import TextToText

WINDOW = 4  # batches whose prompts are sorted by length together; a kill loses at most this much


def predict_examples(
    task: TextToText, examples: Iterable[TextExample], journal: Path, total: int, title: str
) -> list[TextPrediction]:
    """Predict every example in order, each window of them appended to `journal` as soon as it is done.

    Predictions that the journal holds already, from a call that was stopped, are taken over; the others come out as they
    would have without the stop. The random numbers of training are not moved.
    """
    found = [TextPrediction(**row) for row in Journal.read(journal)] if journal.exists() else []
    examples, start = iter(examples), 0
    with Journal(journal) as out, Count(title, total, start=len(found)) as count:
        if found:
            count.note(f"{title}: going on after the {len(found)} that are there")
        while window := list(islice(examples, WINDOW * task.generation.batch_size)):
            for done, example in zip(found[start:], window, strict=False):
                assert done.id == example.id, f"{journal} holds predictions of other inputs"
            if start + len(window) > len(found):
                new: dict[int, TextPrediction] = {}
                with isolated(task.seed + start):  # a window's texts depend on nothing before it, also when sampled
                    for place, prediction in task.predict(window):
                        new[place] = prediction
                        count.to(max(len(found), start + len(new)))
                for place in range(len(found) - start, len(window)):
                    out.append(asdict(new[place]))
                    found.append(new[place])
            start += len(window)
    assert start == len(found), f"{journal} holds predictions of other inputs"
    return found

"""Predictions for many examples: in order, on disk as they are made, going on where an earlier call stopped."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from llmft.data.example import Example, Prediction
from llmft.hardware import heap
from llmft.hardware.determinism import isolated
from llmft.models.load import panics_explained
from llmft.reports.console import Count
from llmft.runs.journal import Journal
from llmft.tasks.formulation import Learner

WINDOW = 4  # batches whose prompts are sorted by length together; a kill loses at most this much


def predict_examples(learner: Learner, examples: Iterable[Example], journal: Path, total: int, title: str) -> list[Prediction]:
    """Predict every example in order, each window of them appended to `journal` as soon as it is done.

    Predictions that the journal holds already, from a call that was stopped, are taken over; the others come out as they
    would have without the stop. The random numbers of training are not moved.
    """
    heap.settle()
    formulation = learner.formulation
    found = []
    if journal.exists():
        found = [formulation.from_row(row["id"], row, str(journal)) for row in Journal.read(journal)]
    examples, start = iter(examples), 0
    with Journal(journal) as out, Count(title, total, start=len(found)) as count:
        if found:
            count.note(f"{title}: going on after the {len(found)} that are there")
        while window := list(islice(examples, WINDOW * learner.generation.batch_size)):
            for done, example in zip(found[start:], window, strict=False):
                assert done.id == example.id, f"{journal} holds predictions of other inputs"
            if start + len(window) > len(found):
                new: dict[int, Prediction] = {}
                # a window's texts depend on nothing before it, also when sampled
                with isolated(formulation.seed + start), panics_explained(learner.pretrained.folder):
                    for place, prediction in learner.predict(window):
                        new[place] = prediction
                        count.to(max(len(found), start + len(new)))
                for place in range(len(found) - start, len(window)):
                    out.append({"id": new[place].id} | formulation.to_row(new[place]))
                    found.append(new[place])
            start += len(window)
    assert start == len(found), f"{journal} holds predictions of other inputs"
    return found

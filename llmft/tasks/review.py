"""The audit of a run's rows, made on the way while they are read for something else, and remembered by what they are."""

from collections.abc import Iterator, Mapping
from typing import Any

from llmft.config.dump import to_values
from llmft.data.audit import AUDIT_FORMAT, Audit
from llmft.data.control_tokens import ControlTokens
from llmft.data.dataset import RowSource
from llmft.data.encode import cache_key
from llmft.data.example import Example
from llmft.data.row import BadRow
from llmft.runs.remembered import recall, remember
from llmft.tasks.formulation import Learner

READ = (
    "source",
    "context",
    "target",
    "answer_start",
    "messages",
    "labels",
    "label_kind",
    "no_answer",
    "overlap",
    "control_tokens",
)
"""Settings that examples and their token ids depend on, whatever the formulation."""


def read_settings(learner: Learner) -> dict[str, Any]:
    """Return the settings by which rows become examples."""
    settings = to_values(learner.formulation.task)
    return {name: settings[name] for name in READ}


class Review:
    """The audit of a run's rows, made while they are read for something else, and remembered by their content."""

    def __init__(self, learner: Learner, splits: Mapping[str, RowSource]):
        pattern, task = ControlTokens(learner.pretrained.tokenizer).pattern, learner.formulation.task
        self._formulation = learner.formulation
        self._splits = splits
        self._key = cache_key(
            audit=AUDIT_FORMAT,
            rows={name: [rows.content, *(file["path"] for file in rows.files)] for name, rows in splits.items()},
            task=read_settings(learner) | {"references": task.references, "max_bad_rows": task.data.max_bad_rows},
            formulation=type(learner.formulation).__name__,
            control=pattern.pattern,
        )
        self._known = recall("audits", self._key)
        self._audit = Audit(splits, pattern)
        self._read: set[str] = set()

    def first(self, split: str) -> None:
        """Read one row of a split: what is wrong with the settings shows in it. Raises DataError."""
        if self._known is None:
            next(iter(self._formulation.examples(self._splits[split])), None)

    def examples(self, split: str) -> Iterator[Example]:
        """Yield the examples of a split; who reads them to the end has them audited."""
        examples = self._formulation.examples(self._splits[split])
        if self._known is not None:
            yield from examples
            return
        if split == "train":  # what is looked for among the training rows is known by then
            self._read_the_rest()
        yield from self._audit.watch(split, examples)
        self._read.add(split)

    def found(self) -> dict[str, Any]:
        """Return what the audit found, once it has seen all rows; those that nobody had to read are read for it."""
        if self._known is None:
            self._read_the_rest()
            for _ in self.examples("train") if "train" not in self._read else ():
                pass
            bad = {name: [[each.where, each.reason] for each in rows.bad_rows] for name, rows in self._splits.items()}
            self._known = {"audit": self._audit.found(), "bad_rows": bad}
            remember("audits", self._key, self._known)
        for name, rows in self._splits.items():
            rows.bad_rows = [BadRow(*each) for each in self._known["bad_rows"][name]]
        found: dict[str, Any] = self._known["audit"]
        return found

    def _read_the_rest(self) -> None:
        for split in self._splits.keys() - self._read - {"train"}:
            for _ in self.examples(split):
                pass

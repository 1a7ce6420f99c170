"""What every task is made of: a formulation, which knows rows and scores, and a learner, which puts a model to it.

A formulation needs no model, so that predictions from anywhere can be scored. A learner is a formulation on one family of
models. Both are written out in full, once per formulation and family, beside and below this file.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import GenerationConfig

from llmft.config.schema import Generation, Task
from llmft.data.encode import Encoded
from llmft.data.example import Example, Prediction
from llmft.data.row import Row
from llmft.metrics.score import Score
from llmft.models.head import Head
from llmft.models.load import Pretrained
from llmft.models.path_check import PathCheck
from llmft.tasks.bound import BoundTask


class Formulation(Protocol):
    """From rows to examples, and from predictions to scores. Made by Formulation(task, bound, seed)."""

    task: Task
    bound: BoundTask
    seed: int

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that an input needs; a plain text stands for the only one."""

    def examples(self, rows: Iterable[Row]) -> Iterator[Example]:
        """Make an example of each row. Raises DataError for a row without what it needs."""

    def inputs(self, rows: Iterable[Row]) -> Iterator[Example]:
        """Make examples without references, for prediction."""

    def to_row(self, prediction: Prediction) -> dict[str, Any]:
        """Return a prediction's columns in a predictions file, beside its id; `prediction` is the one that people read."""

    def from_row(self, id: str, row: Mapping[str, Any], where: str) -> Prediction:
        """Read a prediction from those columns; `prediction` alone is enough. Raises DataError for one that is none."""

    def score(self, predictions: Sequence[Prediction], examples: Sequence[Example]) -> list[Score]:
        """Score predictions, given in the order of the examples; an empty one counts as wrong, never as absent."""

    def baselines(self, examples: Sequence[Example], train: Iterable[Example]) -> dict[str, list[Prediction]]:
        """Return trivial predictions by name; those that need to know what is common look it up in the training examples."""


class Learner(Protocol):
    """A formulation with a model. Made by Learner(formulation, pretrained, generation, precision).

    `unit` is what the loss is summed over and divided by: tokens, windows or texts. `sharing` lets a learner that can do so compute
    once what documents begin with alike; it is set once memory was planned, for documents that share nothing.
    """

    head: Head
    unit: str
    sharing: bool
    formulation: Any
    pretrained: Pretrained
    generation: Generation
    precision: torch.dtype

    def cut(self, documents: Sequence[Encoded], micro_tokens: int) -> list[list[Encoded]]:
        """Cut a step's documents into micro-batches, of at most `micro_tokens` tokens as the model reads them."""

    def encode(self, example: Any) -> Iterator[Encoded]:
        """Tokenise an example; into one document, or a window after the other. Units of 0 leave a document out of training."""

    def ahead(self, examples: Sequence[Any]) -> None:
        """Tokenise in bulk what `encode` will ask for, for the examples that it is called with next."""

    def encoding(self) -> dict[str, Any]:
        """Return what token ids depend on beside rows, templates and tokenizer, as plain values: the cache's key."""

    def loss(self, documents: Sequence[Encoded]) -> Tensor:
        """Loss of the documents, summed over their units."""

    def check_fast_path(self, documents: Sequence[Encoded]) -> PathCheck:
        """Compare the fast path with the plain one on a few documents, and take it from now on if they agree."""

    def predict(self, examples: Sequence[Any]) -> Iterator[tuple[int, Prediction]]:
        """Predict each example; yield the prediction with the example's place, as batches finish."""

    def settings(self) -> dict[str, Any]:
        """Return what a prediction depends on beside model and input, saved with the model as llmft.json."""

    def generation_config(self) -> GenerationConfig | None:
        """Return how the final model writes by itself; None for one that does not write."""

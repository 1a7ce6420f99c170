"""Text in, text out: translation, summarization, generative question answering, instructions."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from llmft.config.schema import Task
from llmft.data.example import Message, TextExample, TextPrediction
from llmft.data.row import Row
from llmft.data.shapes import conversation
from llmft.data.template import Template, fill_each
from llmft.errors import DataError
from llmft.metrics.score import Score
from llmft.tasks.bound import BoundTask, measure
from llmft.tasks.rows import each, field_of, row_id, templates


class TextToText:
    """Rows to sources and references, texts to scores.

    `limit` shortens trivial answers to what the model may write; a learner sets it.
    """

    def __init__(self, task: Task, bound: BoundTask, seed: int):
        self.task = task
        self.bound = bound
        self.seed = seed
        self.limit: Callable[[str], str] = str
        self.source = Template(task.source, "task.source")
        self.context = Template(task.context, "task.context") if task.context else None
        self.target = Template(task.target, "task.target")
        self.references = templates(task.references, "task.references")

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that an input needs."""
        if self.task.messages:
            return (self.task.messages,)
        return tuple(dict.fromkeys(self.source.columns + (self.context.columns if self.context else ())))

    def examples(self, rows: Iterable[Row]) -> Iterator[TextExample]:
        """Fill the templates with each row. Raises DataError for a row without target."""
        if self.task.messages:
            return each(rows, self.conversed)
        return each(rows, self.paired, [self.source, self.target, *self.references, *([self.context] if self.context else [])])

    def conversed(self, row: Row, number: int) -> TextExample:
        """Make the example of a conversation: its last answer is learnt. Raises DataError if there is none."""
        turns = self.turns(row)
        if turns[-1].role != "assistant" or len(turns) < 2:
            raise DataError(
                f"{row.where}: the conversation ends with the {turns[-1].role}; expected an answer of the assistant to "
                f"learn. Fix task.messages={self.task.messages} or the data."
            )
        if not turns[-1].content.strip():
            raise DataError(
                f"{row.where}: the last answer of the conversation is empty; expected text, since there is nothing to learn to "
                f"write without. Fix task.messages={self.task.messages} or the data, or leave such rows out by task.row."
            )
        return TextExample(row_id(row, number), turns[:-1], (turns[-1].content,), row.where)

    def paired(self, row: Row, number: int) -> TextExample:
        """Make the example of a source and its targets. Raises DataError if there is no target."""
        targets = self.target.fill_all(row, may_be_empty=True)
        if not targets or not targets[0].strip():
            raise DataError(
                f"{row.where}: the target is empty; expected text in {self.task.target}, since there is nothing to learn to write "
                "without. Fix task.target or the data, or leave such rows out by task.row. Questions that have no answer are for "
                "task=question_answering_extractive with task.no_answer=true."
            )
        if self.references:
            targets = targets[:1] + [text for text in fill_each(self.references, row) if text != targets[0]]
        return TextExample(row_id(row, number), self.source.fill(row), tuple(targets), row.where, self.context_of(row))

    def inputs(self, rows: Iterable[Row]) -> Iterator[TextExample]:
        """Make examples without targets; of a conversation that has an answer already, what leads up to it."""
        for number, row in enumerate(rows):
            source: str | tuple[Message, ...]
            if self.task.messages and self.task.messages in row.fields:
                turns = self.turns(row)
                source = turns[:-1] if turns[-1].role == "assistant" else turns
            elif self.task.messages:  # a plain text asks as the user
                source = (Message("user", Template(f"{{{self.columns[0]}}}").fill(row)),)
            else:
                source = self.source.fill(row)
            yield TextExample(row_id(row, number), source, (), row.where, self.context_of(row))

    def turns(self, row: Row) -> tuple[Message, ...]:
        """Return a row's conversation; one that is a plain text is a question of the user's."""
        assert self.task.messages
        value = field_of(row, self.task.messages, "task.messages")
        return (Message("user", value),) if isinstance(value, str) else conversation(value, row.where)

    def context_of(self, row: Row) -> str | None:
        """Return the text that is read together with the source."""
        return self.context.fill(row) if self.context else None

    def to_row(self, prediction: TextPrediction) -> dict[str, Any]:
        """Return the text and how it ended."""
        return {"prediction": prediction.text, "finish_reason": prediction.finished}

    def from_row(self, id: str, row: Mapping[str, Any], where: str) -> TextPrediction:
        """Read a text; how it ended need not be known."""
        text = row["prediction"]
        if not isinstance(text, str):
            raise DataError(f"{where}: the prediction is {text!r}; expected a text. An empty text counts as wrong.")
        return TextPrediction(id, text, str(row["finish_reason"]) if "finish_reason" in row else "")

    def score(self, predictions: Sequence[TextPrediction], examples: Sequence[TextExample]) -> list[Score]:
        """Score predicted texts against the references."""
        reasons = [each.finished for each in predictions]
        return measure(
            self.bound.metrics,
            [each.text for each in predictions],
            [each.targets for each in examples],
            self.seed,
            sources=[text_of(each) for each in examples] if has_sources(examples) else None,
            finish_reasons=reasons if all(reasons) else None,  # of some nothing is known: no share of them can be told
            language=self.task.target_language,
        )

    def baselines(self, examples: Sequence[TextExample], train: Iterable[TextExample]) -> dict[str, list[TextPrediction]]:
        """Return the task's trivial answers, held to max_new_tokens like the model's; none where all sources are empty."""
        if not has_sources(examples):
            return {}
        return {
            name.replace("_", "-"): [TextPrediction(each.id, self.limit(answer(each)), "stop") for each in examples]
            for name, answer in self.bound.baselines.items()
        }


def has_sources(examples: Sequence[TextExample]) -> bool:
    """Whether any source has text: a file of references alone has none."""
    return any(text_of(each) for each in examples)


def text_of(example: TextExample) -> str:
    """Return what is read as one text: of a conversation its last turn."""
    source = example.source if isinstance(example.source, str) else example.source[-1].content
    return source if example.context is None else f"{source}\n\n{example.context}"

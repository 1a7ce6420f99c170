"""What a row becomes before it is tokenised, and what a model makes of it: one frozen class each per formulation.

Every example has an `id`, `where` (names the row in error messages: file:line), `source` (what is read, a text or a
conversation) and `targets` (the references as texts), so that what looks at rows as such works with all of them.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; role is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class TextExample:
    """Source text (or the turns so far) and the texts it should become; the first target is trained on, all are references.

    `context` is read together with the source, where the prompt has a place for it.
    """

    id: str
    source: str | tuple[Message, ...]
    targets: tuple[str, ...]
    where: str
    context: str | None = None


@dataclass(frozen=True)
class TextPrediction:
    """What a model wrote for an example; `finished` is "stop" at an end token, "length" at max_new_tokens, "" if unknown."""

    id: str
    text: str
    finished: str


@dataclass(frozen=True)
class SpanExample:
    """A question, the text that answers it, and the gold answers; none: the text does not answer it.

    `starts` holds each answer's first character in `context`, counted in code points; empty for prediction.
    """

    id: str
    question: str
    context: str
    targets: tuple[str, ...]
    starts: tuple[int, ...]
    where: str

    @property
    def source(self) -> str:
        """Question and context as one text."""
        return f"{self.question}\n{self.context}"


@dataclass(frozen=True)
class SpanPrediction:
    """An answer cut from the context at `start`:`end` in characters, with its score; the empty text at 0:0 is no answer.

    `null_odds` is the score of no answer less that of the best answer: above the threshold, there is no answer.
    None: a predictions file that says nothing but the text, or a trivial answer.
    """

    id: str
    text: str
    start: int | None = None
    end: int | None = None
    score: float | None = None
    null_odds: float | None = None


@dataclass(frozen=True)
class LabelExample:
    """A text, or a pair of texts, and its labels: one of single kind, any number of multi kind, a number as text of value kind."""

    id: str
    source: str
    context: str | None
    targets: tuple[str, ...]
    where: str


@dataclass(frozen=True)
class LabelPrediction:
    """The labels chosen (of value kind: the number as text), and each class's probability by name (empty for value kind)."""

    id: str
    labels: tuple[str, ...]
    probabilities: dict[str, float]


@dataclass(frozen=True)
class DocumentExample:
    """A text whose likelihood is measured; `targets` is empty. `continued` asks for a continuation too."""

    id: str
    source: str
    where: str
    continued: bool = False
    targets: tuple[str, ...] = ()


@dataclass(frozen=True)
class DocumentPrediction:
    """How likely a text is: total negative log-likelihood in nats over the `tokens` scored; `num_bytes`: the whole text in UTF-8.

    `text` is the continuation where one was asked for, `finished` as in TextPrediction; else both are empty. `pseudo`: each
    token was predicted from all others, not from those before it, which gives other, lower numbers.
    """

    id: str
    nll: float
    tokens: int
    num_bytes: int
    text: str = ""
    finished: str = ""
    pseudo: bool = False


Example = TextExample | SpanExample | LabelExample | DocumentExample
Prediction = TextPrediction | SpanPrediction | LabelPrediction | DocumentPrediction

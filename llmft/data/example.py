"""What a row becomes before it is tokenised: one frozen class per formulation, equal for training and prediction."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; role is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class TextExample:
    """Source text (or messages) and the texts it should become; the first target is trained on, all are references.

    `where` names the row for error messages: file:line.
    """

    id: str
    source: str | tuple[Message, ...]
    targets: tuple[str, ...]
    where: str


@dataclass(frozen=True)
class TextPrediction:
    """What a model wrote for an example; `finished` is "stop" at an end token, "length" at max_new_tokens."""

    id: str
    text: str
    finished: str

"""Shapes that data sets come in, made into rows: SQuAD, Alpaca, and conversations in OpenAI's and ShareGPT's style."""

from collections.abc import Iterator
from typing import Any

from llmft.data.example import Message
from llmft.data.strict_json import shortened
from llmft.errors import DataError

Fields = dict[str, Any]

ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant",
}  # fmt: skip
"""Who speaks, by the names that OpenAI, ShareGPT and Gemma give them."""


def squad(row: Fields) -> list[Fields]:
    """Questions of a record: a flat one, a paragraph with `qas`, an article with `paragraphs`, or a file with `data`.

    Each has id (if the data set gives one), title, context, question, answers {text, answer_start} and is_impossible.
    Several gold answers stay together; without answer_start in the data there is none here. No answer: empty lists.

    Raises DataError for what is none of these. Rajpurkar et al. 2016, arXiv:1606.05250; 2018, arXiv:1806.03822.
    """
    return list(questions(row, {"title": ""}))


def questions(part: Fields, above: Fields) -> Iterator[Fields]:
    """Yield the questions in a part of a SQuAD file; `above` holds the title and context that it stands under."""
    above = above | {name: part[name] for name in ("title", "context") if part.get(name) is not None}
    for inner in ("data", "paragraphs", "qas"):
        if inner in part:
            for item in items(part[inner], inner):
                yield from questions(item, above)
            return
    answers = answers_of(part)
    impossible = bool(part.get("is_impossible", not answers["text"]))
    if impossible and answers["text"]:
        raise DataError(
            f"is_impossible is set, but answers has {shortened(answers['text'])}; expected one or the other. Fix the data."
        )
    own = {"id": part["id"]} if part.get("id") is not None else {}
    texts = {name: text_at(above | part, name) for name in ("title", "context", "question")}
    yield {**own, **texts, "answers": answers, "is_impossible": impossible}


def answers_of(part: Fields) -> Fields:
    """Return the gold answers under `answers`, or under `answer`: a text, a list of texts, or texts with their places."""
    found = part.get("answers", part.get("answer"))
    if isinstance(found, dict):
        texts, starts = listed(found.get("text")), listed(found.get("answer_start"))
    else:
        answers = listed(found)
        texts = [answer.get("text") if isinstance(answer, dict) else answer for answer in answers]
        starts = [answer["answer_start"] for answer in answers if isinstance(answer, dict) and "answer_start" in answer]
    if texts == [""]:  # how tables write that there is none
        texts, starts = [], []
    if not all(isinstance(text, str) and text for text in texts):
        raise DataError(f"answers has {shortened(texts)}; expected texts. Fix the data.")
    if not starts and (texts or isinstance(found, str)):
        return {"text": texts}
    if len(starts) != len(texts) or not all(type(start) is int and start >= 0 for start in starts):
        raise DataError(
            f"answer_start is {shortened(starts)} for {len(texts)} answers; expected one place for each, in characters from 0, "
            "or none at all. Fix the data."
        )
    return {"text": texts, "answer_start": starts}


def alpaca(row: Fields) -> list[Fields]:
    """Instruction, input and output, or an instruction with several `instances` of input and output: id, source, target.

    The input stands below the instruction, after an empty line; one that is empty leaves the instruction alone. Without an
    output, as in what is to be predicted, there is no target.
    Raises DataError where another text is missing. Taori et al. 2023; Wang et al. 2022, arXiv:2212.10560.
    """
    instruction = text_at(row, "instruction")
    instances = items(row["instances"], "instances") if "instances" in row else [row]
    made = []
    for number, instance in enumerate(instances, start=1):
        given = text_at(instance, "input") if instance.get("input") is not None else ""
        source = f"{instruction}\n\n{given}" if given.strip() else instruction
        own = {"id": row["id"] if len(instances) == 1 else f"{row['id']}-{number}"} if row.get("id") is not None else {}
        answer = {"target": text_at(instance, "output")} if "output" in instance else {}
        made.append({**own, "source": source, **answer})
    return made


def conversation(value: Any, where: str) -> tuple[Message, ...]:
    """Return the turns of a conversation, written {role, content} or {from, value}.

    Raises DataError, which names the row by `where`, for anything else.
    """
    if not isinstance(value, list) or not value:
        raise DataError(f"{where}: the conversation is {shortened(value)}; expected a list of turns. Fix the data.")
    return tuple(message(turn, f"{where}: turn {number}") for number, turn in enumerate(value, start=1))


def message(turn: Any, where: str) -> Message:
    """Return one turn. Raises DataError."""
    if not isinstance(turn, dict) or not ({"role", "content"} <= turn.keys() or {"from", "value"} <= turn.keys()):
        raise DataError(f"{where} is {shortened(turn)}; expected role and content, or from and value. Fix the data.")
    speaker, content = (
        (turn["role"], turn["content"]) if "role" in turn and "content" in turn else (turn["from"], turn["value"])
    )
    if not isinstance(speaker, str) or speaker not in ROLES:
        raise DataError(f"{where} is by {shortened(speaker)}; expected one of {', '.join(ROLES)}. Fix the data.")
    if isinstance(content, list):  # OpenAI's parts
        texts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content]
        content = "".join(map(str, texts)) if texts and all(isinstance(text, str) for text in texts) else content
    if not isinstance(content, str):
        raise DataError(f"{where} says {shortened(content)}; expected text. Fix the data, or leave the row out by task.row.")
    return Message(ROLES[speaker], content)


def listed(value: Any) -> list[Any]:
    """Return a list as it is, nothing as an empty one, and one thing as a list of it."""
    return value if isinstance(value, list) else [] if value is None else [value]


def items(value: Any, name: str) -> list[Fields]:
    """Return a list of objects. Raises DataError if it is something else."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise DataError(f"{name} is {shortened(value)}; expected a list of objects. Fix the data.")
    return value


def text_at(fields: Fields, name: str) -> str:
    """Return the text under a name. Raises DataError if there is none."""
    if name not in fields:
        raise DataError(f"no {name!r}; found {', '.join(map(str, fields))}. Fix the data, or leave task.row out.")
    if not isinstance(fields[name], str):
        raise DataError(f"{name} is {shortened(fields[name])}; expected text. Fix the data.")
    return fields[name]

"""The built-in set library_questions: questions about a documentation string, each answered by words that stand in it.

The texts are real; questions and answers are made from their sentences by the rules below, and are simpler than people's.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from llmft.data.builtin.docstrings import Docstring, library, module_of, split_rows
from llmft.data.builtin.prose import flowed, is_prose, paragraphs
from llmft.data.row import Row

CONTEXT_CHARACTERS = (80, 1000)
CONTEXT_WORDS = 12
ANSWER_WORDS = 14

ERROR = r"(?P<answer>[A-Z]\w+(?:Error|Exception|Warning|Exit|Iteration|Empty|Full))"
CONDITION = r"(?P<asked>(?:if|when|unless) [^.;:()]{8,90})"
BEGIN = r"(?:^|\. )"
END_OF_VALUE = r"(?=[.,;)]\s|[.,;)]?$)"
END = r"\.(?=\s|$)"
RULES = [
    (re.compile(pattern, re.MULTILINE), question)
    for pattern, question in (
        (rf"\b{ERROR}(?: exception)? (?:is|will be) raised {CONDITION}[.;]", "Which exception is raised {asked}?"),
        (rf"\b[Rr]aises? (?:an? |the )?{ERROR}(?: exception)? {CONDITION}[.;]", "Which exception is raised {asked}?"),
        (BEGIN + r"If (?P<asked>[^,.;:()]{10,90}), (?:then )?(?P<answer>[^.;:()]{8,90})" + END, "What happens if {asked}?"),
        (
            BEGIN + r"Returns? (?P<answer>(?:an?|the|True|False|all|how|whether|every)\b[^.;:()]{6,80})" + END,
            "What does {name} return?",
        ),
        (
            r"\b(?P<asked>[a-z_]\w+)\*?(?: argument| parameter)? defaults to (?P<answer>[\w'\"./-]*\w['\"]?)" + END_OF_VALUE,
            "What does {asked} default to?",
        ),
        (
            BEGIN
            + r"(?:The )?\*?(?P<asked>[A-Za-z_]\w+)\*? is (?P<answer>(?:an? |the )(?:(?! and | is )[^.;:(),]){8,80})"
            + END,
            "What is {asked}?",
        ),
    )
]
"""What a sentence looks like that answers a question, and the question."""

NO_NAMES = {"it", "this", "that", "which", "what", "there", "and", "or", "here", "he", "self", "one", "result", "name", "value"}
"""Words that name nothing by themselves."""


@dataclass(frozen=True)
class Question:
    """A question about a context and its answer, which stands there from the character `start` on."""

    context: str
    question: str
    answer: str
    start: int


def library_questions() -> dict[str, list[Row]]:
    """Return train, validation and test rows {id, title, context, question, answers {text, answer_start}, module}.

    Split by top-level module, without eight words in a row in common, the same for every run of a Python version.
    """
    rows = []
    for docstring in library():
        for number, asked in enumerate(questions(docstring), start=1):
            fields = {
                "id": f"{docstring.name}-{number}",
                "title": docstring.name,
                "context": asked.context,
                "question": asked.question,
                "answers": {"text": [asked.answer], "answer_start": [asked.start]},
                "module": docstring.module,
            }
            rows.append(Row(fields, docstring.where))
    return split_rows(first_of_each(rows), "library_questions", ("context",), module_of)


def questions(docstring: Docstring) -> Iterator[Question]:
    """Yield what can be asked of a docstring, in the order of the rules."""
    asked_before = set()
    for context in contexts(docstring.text):
        for pattern, question in RULES:
            for match in pattern.finditer(context):
                asked, answer = match.groupdict().get("asked", ""), match["answer"]
                text = question.format(asked=flowed(asked), name=docstring.name.rpartition(".")[2])
                if text not in asked_before and is_sound(asked, answer, text):
                    yield Question(context, text, answer, match.start("answer"))
                asked_before.add(text)


def contexts(docstring: str) -> list[str]:
    """Return a docstring with its paragraphs as lines; where that is too long or no prose, those that are good alone."""
    parts = [flowed(part) for part in paragraphs(docstring)]
    whole = "\n".join(parts)
    found = [part for part in (whole, *parts) if is_prose(part, CONTEXT_CHARACTERS, CONTEXT_WORDS)]
    return [whole] if whole in found else found


def is_sound(asked: str, answer: str, question: str) -> bool:
    """Whether a question names what it asks for and its answer is whole, short, and not in the question."""
    return (
        len(answer.split()) <= ANSWER_WORDS
        and asked.lower() not in NO_NAMES
        and answer.lower() not in question.lower()
        and not re.match(r"(but|and|or|e|i)\b", answer)
        and not re.search(r"\b(e|g|i|etc|vs|a|the|to|of|and|or)$", answer)
        and "__" not in question
        and all(text.count(mark) % 2 == 0 for text in (asked, answer) for mark in ("`", '"', "*"))
    )


def first_of_each(rows: list[Row]) -> Iterator[Row]:
    """Yield rows with a new id and a question not yet asked of their text; a property and its setter have one name."""
    seen: set[str] = set()
    for row in rows:
        keys = {row.fields["id"], f"{row.fields['question']}\n{row.fields['context']}"}
        if not keys & seen:
            yield row
        seen |= keys

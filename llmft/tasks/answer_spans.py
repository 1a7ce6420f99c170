"""Where the gold answers of a question stand in its context, counted in code points from 0."""

from llmft.data.strict_json import shortened
from llmft.errors import DataError


def places_of(answers: list[str], starts: list[int] | None, context: str, where: str) -> tuple[int, ...]:
    """Return each answer's first character: the place that the data name, or without one the first where the answer stands.

    Raises DataError where an answer does not stand there, or nowhere.
    """
    if starts is None:
        return tuple(first_place(answer, context, where) for answer in answers)
    if len(starts) != len(answers):
        raise DataError(
            f"{where}: {len(starts)} places for {len(answers)} answers; expected one for each, in characters from 0. "
            "Fix the data, or set task.answer_start=null to look the answers up."
        )
    for answer, start in zip(answers, starts, strict=True):
        found = context[max(0, start) : max(0, start) + len(answer)]
        if start < 0 or found != answer:
            raise DataError(
                f"{where}: at character {start} of the context stands {shortened(found)}, not the answer {shortened(answer)}"
                f"{elsewhere(answer, context)} Places are counted in characters (code points) from 0. "
                "Fix the data, or set task.answer_start=null to look the answers up."
            )
    return tuple(starts)


def first_place(answer: str, context: str, where: str) -> int:
    """Return the first place of an answer in the context. Raises DataError if it does not stand there letter by letter."""
    place = context.find(answer)
    if place < 0:
        near = context.casefold().find(answer.casefold())
        hint = f" With other letters it does: {shortened(context[near : near + len(answer)])}." if near >= 0 else ""
        raise DataError(
            f"{where}: the answer {shortened(answer)} does not stand in the context; expected it there letter by letter, since "
            f"answers are cut out of the context.{hint} Fix the data, leave such rows out by task.row, or use "
            "task=question_answering, which writes its answers."
        )
    return place


def elsewhere(answer: str, context: str) -> str:
    """Say where else an answer stands, as the end of a sentence."""
    place = context.find(answer)
    return "." if place < 0 else f", which stands at {place}."

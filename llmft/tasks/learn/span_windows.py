"""Windows of a question and a piece of its context, overlapping so that an answer is whole in one of them."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmft.config.schema import Truncation
from llmft.data.shorten import must_be_counted, shorten
from llmft.errors import ConfigError, DataError, ModelError

# T tokens of a window

STEPS = 8
"""Every window moves on by an eighth of its length at least: a question that leaves less is cut, or there would be no end."""


@dataclass(frozen=True, eq=False)
class Window:
    """A window's token ids; `context_T`: which of them stand for context; `offsets_T2`: first and last + 1 character there.

    `covers` are the limits of its part of the context in characters, `no_answer` is the token that stands for no answer,
    `second` where token type 1 begins (0: nowhere).
    """

    ids_T: np.ndarray
    context_T: np.ndarray
    offsets_T2: np.ndarray
    covers: tuple[int, int]
    no_answer: int
    second: int

    def __len__(self) -> int:
        return len(self.ids_T)

    def tokens_of(self, start: int, end: int) -> tuple[int, int]:
        """Return the first and last token of the characters from start up to end; `no_answer` twice if not all are here.

        Tokens may stand for parts of one character: the first and the last that touch the answer are meant.
        """
        touching = np.flatnonzero(self.answerable_T & (self.offsets_T2[:, 1] > start) & (self.offsets_T2[:, 0] < end))
        if not len(touching) or self.covers[0] > start or self.covers[1] < end:
            return self.no_answer, self.no_answer
        return int(touching[0]), int(touching[-1])

    @property
    def answerable_T(self) -> np.ndarray:
        """Which tokens stand for some of the context that is no white space."""
        return self.context_T & (self.offsets_T2[:, 0] < self.offsets_T2[:, 1])


class Windower:
    """Cuts question and context into windows of at most `length` tokens (None: one window) that share `overlap` of context.

    Raises ModelError for a tokenizer that does not tell where its tokens stand, ConfigError where windows could not move on.
    """

    def __init__(self, tokenizer: Any, length: int | None, overlap: int, truncation: Truncation):
        if not tokenizer.is_fast:
            raise ModelError(
                f"model.name: its tokenizer, {type(tokenizer).__name__}, does not tell where its tokens stand in a text, which cutting "
                "answers out needs; expected one of the tokenizers library (with a tokenizer.json). Name another model."
            )
        self.tokenizer = tokenizer
        self.length = length
        self.overlap = overlap
        self.truncation = truncation
        self.limits = {} if length is None else {"truncation": "only_second", "max_length": length, "stride": overlap}
        self.made: dict[tuple[str, str], list[Any]] = {}
        self.question_room: int | None = None
        if length is not None:
            special = tokenizer.num_special_tokens_to_add(pair=True)
            self.question_room = length - special - overlap - (length // STEPS or 1)
            if self.question_room < 1:
                raise ConfigError(
                    f"task.overlap={overlap} leaves no room for a question in windows of {length} tokens, which have {special} special ones "
                    f"and move on by {length // STEPS or 1} at least. Lower it, or raise task.max_source_tokens."
                )

    def windows(self, question: str, context: str, where: str) -> tuple[list[Window], int]:
        """Return the windows in order, and how many tokens of the question were cut.

        A question that leaves windows too little room to move on is cut as task.truncation says. Raises DataError if that is
        error.
        """
        question, cut = self.fitting(question.lstrip(), where)
        found = self.made.get((question, context))
        if found is None:
            found = self.tokenizer(question, context, return_overflowing_tokens=True, **self.limits).encodings
        last = len(found) - 1
        return [
            window_of(each, self.tokenizer, context, at_start=number == 0, at_end=number == last)
            for number, each in enumerate(found)
        ], cut

    def ahead(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Cut in bulk the questions and contexts that `windows` will be asked for next, but for questions that may be too long."""
        room = self.question_room
        asked = [
            (question.lstrip(), context)
            for question, context in pairs
            if question.strip() and context and not must_be_counted(question, room)
        ]
        self.made = {each: [] for each in asked}
        if asked:
            questions, contexts = map(list, zip(*self.made, strict=True))
            found = self.tokenizer(questions, contexts, return_overflowing_tokens=True, **self.limits)
            for place, encoding in zip(found.overflow_to_sample_mapping, found.encodings, strict=True):
                self.made[questions[place], contexts[place]].append(encoding)

    def fitting(self, question: str, where: str) -> tuple[str, int]:
        """Return a question cut to the room that there is, and how many of its tokens that cost."""
        if self.question_room is not None and self.truncation is Truncation.error:
            count = len(self.tokenizer(question, add_special_tokens=False).input_ids)
            if count > self.question_room:
                raise DataError(
                    f"{where}: the question has {count} tokens; beside it, a window of {self.length} tokens with an overlap of "
                    f"{self.overlap} needs it to have {self.question_room} or less. Raise task.max_source_tokens, lower task.overlap, "
                    "or set task.truncation=end."
                )
        return shorten(self.tokenizer, question, self.question_room, self.truncation, where)


def window_of(encoding: Any, tokenizer: Any, context: str, at_start: bool, at_end: bool) -> Window:
    """Make a window of what the tokenizers library returns for it; whether it is the context's first and last is told."""
    ids_T = np.array(encoding.ids, np.int32)
    context_T = np.array([place == 1 for place in encoding.sequence_ids])
    offsets_T2 = np.array(encoding.offsets, np.int64)
    limits = offsets_T2[context_T]
    # no token stands for some characters, such as direction marks: at the context's ends they belong to the window all the same
    first = 0 if at_start or not len(limits) else int(limits[0, 0])
    covers = (first, len(context) if at_end else int(limits[-1, 1]) if len(limits) else first)
    for place in np.flatnonzero(context_T):
        start, end = offsets_T2[place].tolist()
        begins_next = place + 1 < len(ids_T) and context_T[place + 1]
        offsets_T2[place] = whole(context, start, end, int(offsets_T2[place + 1, 0]) if begins_next else len(context))
    # as transformers' run_qa: the class token, or the beginning of the text, or else what stands first
    special = [token for token in (tokenizer.cls_token_id, tokenizer.bos_token_id) if token in encoding.ids]
    no_answer = encoding.ids.index(special[0]) if special else 0
    second = encoding.type_ids.index(1) if 1 in encoding.type_ids else 0
    return Window(ids_T, context_T, offsets_T2, covers, no_answer, second)


def whole(text: str, start: int, end: int, limit: int) -> tuple[int, int]:
    """Return the limits of text[start:end] without the space around it, and with the marks behind it that no token stands for.

    Some tokens begin with the space before the word. A tokenizer that takes off accents leaves out Thai tone marks, Arabic
    vowels and accents written apart: an answer would lose its last one. limit: where the next token begins.
    """
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    end = start + len(piece.strip())
    while start < end < limit and unicodedata.category(text[end]).startswith("M"):
        end += 1
    return start, end

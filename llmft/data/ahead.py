"""Tokenising ahead: many texts in one call, which the tokenizers library spreads over all cores, for who asks one by one.

A tokenizer called with one short text spends most of its time on the call. So rows are read some hundred at a time, their
texts are tokenised together, and each is then encoded as if it were alone: it finds its ids made.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

E = TypeVar("E")
MOST_ROWS = 512
MOST_LETTERS = 1 << 20
"""Rows, and characters in them, that are tokenised together."""


class Ahead:
    """A tokenizer called with the same options each time: ids of a text, and those of many for which it will be asked next."""

    def __init__(self, tokenizer: Any, text: str = "text", **options: Any):
        self._tokenizer = tokenizer
        self._text = text
        self._options = options
        self._made: dict[str, list[int]] = {}

    def __call__(self, text: str) -> list[int]:
        """Return the token ids of a text."""
        made = self._made.get(text)
        return list(self._tokenizer(**{self._text: text}, **self._options).input_ids if made is None else made)

    def make(self, texts: Iterable[str]) -> None:
        """Tokenise texts together; those of the call before are forgotten."""
        different = list(dict.fromkeys(texts))
        ids = self._tokenizer(**{self._text: different}, **self._options).input_ids if different else []
        self._made = dict(zip(different, ids, strict=True))


def read_ahead(examples: Iterable[E], make: Callable[[Sequence[E]], None]) -> Iterator[E]:
    """Yield the examples, each one after `make` was called with those that it is read together with."""
    some: list[E] = []
    letters = 0
    for example in examples:
        some.append(example)
        letters += letters_of(example)
        if len(some) == MOST_ROWS or letters >= MOST_LETTERS:
            make(some)
            yield from some
            some, letters = [], 0
    if some:
        make(some)
        yield from some


def letters_of(example: Any) -> int:
    """Return how many characters are tokenised for an example; a conversation's turns are read again for each answer."""
    turns = example.source
    source = len(turns) if isinstance(turns, str) else len(turns) * sum(len(turn.content) for turn in turns)
    return source + len(getattr(example, "context", None) or "") + sum(map(len, example.targets))

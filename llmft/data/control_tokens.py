"""Control tokens in the texts of rows: read as plain text, so that no row can open a turn of a chat, or end one.

A tokenizer turns "<|im_end|>" in a text into the one token that ends a turn, whoever wrote the text. Here it becomes the
ten or so tokens that spell it. Texts without such a word get the ids they always had.
"""

import re
from collections.abc import Iterable
from typing import Any

from llmft.errors import ModelError

PRIVATE = 0xF0000
"""Where Unicode's second private area begins: characters that stand for nothing."""


class ControlTokens:
    """The words that one tokenizer reads as control tokens: those it calls special, and `more` that mark a template's turns."""

    def __init__(self, tokenizer: Any, more: Iterable[str] = ()):
        self.tokenizer = tokenizer
        added = {int(place): token for place, token in tokenizer.added_tokens_decoder.items()}
        names = {token.content: token for token in added.values() if token.special or token.content in set(more)}
        words = {*tokenizer.all_special_tokens, *names}
        self.ids = {tokenizer.convert_tokens_to_ids(word) for word in words} - {tokenizer.unk_token_id}
        # longest first: <|end|> may be the beginning of <|end|>_of_text
        self.pattern = re.compile("|".join(map(re.escape, sorted(words, key=lambda word: (-len(word), word)))) or "(?!)")
        backend = getattr(tokenizer, "backend_tokenizer", None)
        loose = backend is not None and any(token.normalized for token in names.values())
        self.normalizer = backend.normalizer if loose and backend is not None else None

    def seen(self, text: str) -> str:
        """Return `text`, or the text that the tokenizer makes of it where that alone shows a control token (</s> in full width)."""
        if self.normalizer is None or self.pattern.search(text):
            return text
        normal: str = self.normalizer.normalize_str(text)
        return normal if self.pattern.search(normal) else text

    def plain(self, text: str) -> str:
        """Return `text` as it is, unless the tokenizer knows no other way to write a control token in it: then with a space in it.

        So it is where the vocabulary holds the token among its words (T5). Raises ModelError where the space does not help.
        """
        text = self.seen(text)
        if not self.pattern.search(text) or not self.ids.intersection(self.spelt(text)):
            return text
        return self.broken(text)

    def broken(self, text: str) -> str:
        """Return `text` with a space in each control token. Raises ModelError where it still holds one."""
        found = self.pattern.sub(lambda word: f"{word[0][0]} {word[0][1:]}", self.seen(text))
        if self.pattern.search(self.seen(found)) or self.ids.intersection(self.spelt(found)):
            raise ModelError(
                f"the tokenizer cannot write {self.pattern.findall(text)[:1]} as text, and a row holds it. Take it out of the data, "
                "or set task.control_tokens=token."
            )
        return found

    def spelt(self, text: str) -> list[int]:
        """Return the ids of a text in which special tokens are text."""
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)

    def marks_for(self, texts: Iterable[str]) -> tuple[str, str]:
        """Return two characters that stand in none of the texts."""
        used = set().union(*texts)
        free = (letter for letter in map(chr, range(PRIVATE, PRIVATE + 65534)) if letter not in used)
        return next(free), next(free)

    def ids_between(self, text: str, marks: tuple[str, str]) -> list[int]:
        """Return the ids of a rendered chat in which marks stand around words that are to be text; all other tokens count.

        A template may have parted a pair of marks: a single one is left out, and still keeps what is on its sides apart.
        """
        opening, closing = map(re.escape, marks)
        pieces = re.split(f"{opening}([^{opening}{closing}]*){closing}|[{opening}{closing}]", text)
        ids: list[int] = []
        known: dict[str, list[int]] = {}
        for place, piece in enumerate(pieces):
            if piece and place % 2:
                if piece not in known:  # a row may hold one a million times
                    known[piece] = self.spelt(self.plain(piece))
                ids += known[piece]
            elif piece:
                ids += self.tokenizer(piece, add_special_tokens=False, split_special_tokens=False).input_ids
        return ids

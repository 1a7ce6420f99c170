"""A split as training reads it."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from llmft.data.encode import Encoded, TokenCache
from llmft.data.prefixes import shared_tokens

FRAME_TOKENS = 512
"""Tokens in which all rows may be alike before their texts begin: a template, a system prompt."""
TEXT_TOKENS = 64
"""Tokens behind those that tell one text from another."""


@dataclass(frozen=True)
class Encodings:
    """The token cache of a split, and which of its rows carry loss: those without were too long, and are left out."""

    cache: TokenCache
    rows: np.ndarray

    @property
    def left_out(self) -> int:
        """Rows that are not used."""
        return len(self.cache) - len(self.rows)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each usable row."""
        return self.cache.lengths[self.rows] if self.left_out else self.cache.lengths

    def documents(self, places: list[int]) -> list[Encoded]:
        """Return the documents at these places among the usable rows."""
        return [self.cache[int(self.rows[place])] for place in places]

    def texts(self) -> np.ndarray:
        """Return a number for each usable row, the same for rows on one text: alike in the first tokens that not all rows share."""
        frame = shared(self.cache.beginning(int(row), 0, FRAME_TOKENS) for row in self.rows)
        seen: dict[bytes, int] = {}
        keys = (self.cache.beginning(int(row), frame, frame + TEXT_TOKENS) for row in self.rows)
        return np.fromiter((seen.setdefault(key, len(seen)) for key in keys), np.int64, len(self.rows))


def shared(beginnings: Iterable[bytes]) -> int:
    """Return how many tokens all beginnings, as bytes of 32-bit numbers, have in common."""
    common: np.ndarray | None = None
    for each in beginnings:
        ids = np.frombuffer(each, np.int32)
        common = ids if common is None else common[: shared_tokens(common, ids)]
    return 0 if common is None else len(common)

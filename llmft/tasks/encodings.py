"""A split as training reads it."""

from dataclasses import dataclass

import numpy as np

from llmft.data.encode import Encoded, TokenCache


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

"""How often something happens, as people write it: "200", "200 steps", "0.5 epochs", "never"."""

import math
import re
from dataclasses import dataclass
from typing import Literal

from llmft.errors import ConfigError


@dataclass(frozen=True)
class Every:
    """An interval in optimizer steps (a whole number) or in epochs."""

    value: float
    unit: Literal["steps", "epochs"]


def parse_every(text: str) -> Every | None:
    """The interval that `text` names; None for never. Raises ConfigError if it names none."""
    if text.strip() == "never":
        return None
    match = re.fullmatch(r"\s*(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*(steps?|epochs?)?\s*", text)
    value = float(match[1]) if match else 0.0
    in_epochs = bool(match and match[2] and match[2].startswith("epoch"))
    if not 0 < value < math.inf or not (in_epochs or value.is_integer()):
        raise ConfigError(f'found {text!r}, expected "200" or "200 steps", "0.5 epochs", or "never"')
    return Every(value, "epochs" if in_epochs else "steps")

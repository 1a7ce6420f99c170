"""Text as it may be shown: a terminal obeys what stands between the letters, and data, models and files are not to command it."""

import re

from llmft.config.secrets import redact

CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves the cursor, recolours, retitles (ECMA-48), or reorders what is read (Unicode bidirectional controls)."""


def visible(text: str) -> str:
    r"""The text with control characters as \x1b, except new lines and tabs."""
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def shown(text: str) -> str:
    """The text for a terminal or a log: no control characters, no secrets."""
    return visible(redact(text))

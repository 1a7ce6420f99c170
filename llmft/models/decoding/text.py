"""One text while it is written."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Text:
    """A text for the source at `place` among those given; `given` is what counts as written before it (a prompt, a start token).

    `uniforms` are the numbers in 0..1 that its tokens are drawn by, one each; empty where none is drawn.
    """

    place: int
    given: Sequence[int]
    uniforms: Sequence[float] = ()
    ids: list[int] = field(default_factory=list)

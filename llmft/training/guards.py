"""What stops a run before it does harm: numbers that are not finite, gradients out of all proportion, and patience."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from llmft.errors import Diverged
from llmft.hardware.finite import first_not_finite

SPIKE_WINDOW = 64  # gradient norms whose median tells what is usual
SPIKE_SURE = 16  # fewer norms say too little, and the first ones are often large
SPIKES_IN_ROW = 8  # so many are no spikes: the norm has risen for good


@dataclass(frozen=True)
class Scene:
    """Where a run stands, for messages: its step, the rows of it, and the newest checkpoint, None before the first.

    The last two are looked up only where a message is made.
    """

    step: int
    rows: Callable[[], Sequence[str]]
    checkpoint: Callable[[], str | None]

    def stop(self, found: str, updated: bool = False) -> Diverged:
        """The error that ends a run in which `found` was seen; `updated`: after the update of its step, not before."""
        rows, checkpoint = self.rows(), self.checkpoint()
        shown = ", ".join(rows[:8]) + (" ..." if len(rows) > 8 else "")
        what = "the updated weights were thrown away" if updated else "the weights were not updated"
        kept = f"the last good checkpoint is {checkpoint}" if checkpoint else "no checkpoint was written yet"
        return Diverged(
            f"step {self.step}: {found} on the rows {shown}; {what}, {kept}. "
            "Lower optimizer.lr, raise schedule.warmup, or lower optimizer.max_grad_norm."
        )


def check_finite(scene: Scene, loss: float, grad_norm: float, state: Callable[[], Iterable[tuple[str, Tensor]]]) -> None:
    """Raise Diverged, before the update, if loss or gradient is not finite.

    state: weights and what the optimizer remembers, searched for the cause only then. To read them at each update would take
    as long as that; what is spoilt there, by an update or from outside, shows in the next loss or, at the latest, before a
    checkpoint.
    """
    if math.isfinite(loss) and math.isfinite(grad_norm):
        return
    found = f"loss {loss:g}, gradient norm {grad_norm:g}"
    name = first_not_finite(state())
    raise scene.stop(f"{found}, and {name} is not finite since before this step," if name else found)


def check_updated(scene: Scene, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Raise Diverged if an update has left weights, or what the optimizer remembers, that are not finite."""
    if name := first_not_finite(tensors):
        raise scene.stop(f"{name} is not finite after the update", updated=True)


def is_spike(norm: float, norms: Sequence[float], factor: float | None) -> bool:
    """Tell whether a gradient norm exceeds `factor` times the median of those before; None: nothing is a spike."""
    return factor is not None and len(norms) >= SPIKE_SURE and norm > factor * statistics.median(norms)


def check_spikes(scene: Scene, norm: float, norms: Sequence[float], in_row: int) -> None:
    """Raise Diverged where too many steps in a row were skipped."""
    if in_row >= SPIKES_IN_ROW:
        raise scene.stop(f"gradient norm {norm:g}, the {in_row}th in a row far above the usual {statistics.median(norms):g},")


def improved(value: float, best: float | None, higher_is_better: bool) -> bool:
    """Tell whether a validation is better than the best so far; not-a-number never is."""
    if not math.isfinite(value):
        return False
    return best is None or (value > best if higher_is_better else value < best)

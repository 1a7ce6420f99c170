"""What stops a run before it does harm: numbers that are not finite, and validations that no longer improve."""

import math
from collections.abc import Sequence

from llmft.errors import Diverged


def check_finite(step: int, loss: float, grad_norm: float, row_ids: Sequence[str], last_checkpoint: str | None) -> None:
    """Raise Diverged, before the update, if loss or gradient is not finite."""
    if math.isfinite(loss) and math.isfinite(grad_norm):
        return
    kept = f"the last good checkpoint is {last_checkpoint}" if last_checkpoint else "no checkpoint was written yet"
    shown = ", ".join(row_ids[:8]) + (" ..." if len(row_ids) > 8 else "")
    raise Diverged(
        f"step {step}: loss {loss:g}, gradient norm {grad_norm:g} on the rows {shown}; the weights were not updated, {kept}. "
        "Lower optimizer.lr, raise schedule.warmup, or lower optimizer.max_grad_norm."
    )


def improved(value: float, best: float | None, higher_is_better: bool) -> bool:
    """Tell whether a validation is better than the best so far; not-a-number never is."""
    if not math.isfinite(value):
        return False
    return best is None or (value > best if higher_is_better else value < best)

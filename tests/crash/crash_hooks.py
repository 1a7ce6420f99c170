"""What the laboratory counts, and does, inside a command; asked for by environment variables.

LAB_STEPS=FILE: a "." is appended for every update of an optimizer and a "b" for every backward pass. torch makes the calls,
an update's after the weights have changed, so that the count is not llmft's own; and it survives SIGKILL.
LAB_SIGNAL=NUMBER@UPDATES+BACKWARDS: the process sends itself that signal once it has made so many updates, and then so many
backward passes: in the middle of a step.
"""

import os
from typing import Any

TRIAL_NUMBERS = 6
"""llmft tries an optimizer on so many numbers of no model before anything is loaded; those are no updates of a run."""


def install() -> None:
    """Do what the environment asks for; torch has to be there."""
    import torch
    from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

    path, wanted = os.environ.get("LAB_STEPS"), os.environ.get("LAB_SIGNAL")
    if path is None and wanted is None:
        return
    counts = os.open(path or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    number, moment = wanted.split("@") if wanted else ("0", "-1+0")
    backward, updates, passes = torch.Tensor.backward, 0, 0
    counted: list[Optimizer] = []  # Muon comes with an AdamW for the other weights; one of them is enough

    def signalling(self: torch.Tensor, *args: Any, **options: Any) -> None:
        nonlocal passes
        backward(self, *args, **options)
        passes += 1
        os.write(counts, b"b")
        if f"{updates}+{passes}" == moment:
            os.kill(os.getpid(), int(number))

    def count(optimizer: Optimizer, *_: Any) -> None:
        nonlocal updates, passes
        numbers = sum(weight.numel() for group in optimizer.param_groups for weight in group["params"])
        if numbers > TRIAL_NUMBERS and optimizer in (counted or [optimizer]):
            counted[:] = [optimizer]
            updates, passes = updates + 1, 0
            os.write(counts, b".")

    torch.Tensor.backward = signalling  # type: ignore[method-assign, assignment]
    register_optimizer_step_post_hook(count)

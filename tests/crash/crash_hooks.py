"""What the laboratory counts, and does, inside a command; asked for by environment variables.

LAB_STEPS=FILE: one byte is appended for every update of an optimizer. torch calls it, after the weights have changed, so
that the count is not llmft's own, and it survives SIGKILL.
LAB_SIGNAL=NUMBER@N: the process sends itself that signal right after its Nth backward pass, so mid-step with micro-batches.
"""

import os
from typing import Any


def install() -> None:
    """Do what the environment asks for; torch has to be there."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    if path := os.environ.get("LAB_STEPS"):
        steps = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        register_optimizer_step_post_hook(lambda *_: os.write(steps, b"."))
    if wanted := os.environ.get("LAB_SIGNAL"):
        number, place = map(int, wanted.split("@"))
        backward, passed = torch.Tensor.backward, 0

        def signalling(self: torch.Tensor, *args: Any, **options: Any) -> None:
            nonlocal passed
            backward(self, *args, **options)
            passed += 1
            if passed == place:
                os.kill(os.getpid(), number)

        torch.Tensor.backward = signalling  # type: ignore[method-assign, assignment]

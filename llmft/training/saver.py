"""When checkpoints are written: while training waits, or in a thread beside it."""

import threading
from collections.abc import Sequence
from pathlib import Path

from torch.optim import Optimizer

from llmft.models.load import Pretrained
from llmft.training import checkpoint, shelf
from llmft.training.checkpoint import Position, State
from llmft.training.shelf import Prints


class Saver:
    """Writes the checkpoints of one run, marks the best one and drops those no longer kept, in this order.

    `beside`: a copy of the state is written by a thread while training goes on. The next save and `wait` wait for it, and
    raise what it raised.
    """

    def __init__(self, checkpoints: Path, prints: Prints, keep: int, beside: bool):
        self.checkpoints, self.prints, self.keep, self.beside = checkpoints, prints, keep, beside
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._notes: list[str] = []
        self._step: int | None = None  # of the newest save

    def save(self, pretrained: Pretrained, optimizers: Sequence[Optimizer], position: Position) -> list[str]:
        """Write a checkpoint, but not twice at one step. Return sentences for the user.

        Raises LlmftError if it, or the one before, cannot be written.
        """
        notes = self.wait()
        if position.step == self._step:  # a best one that was due besides; to read it all again would say nothing new
            return notes
        state = checkpoint.snapshot(pretrained, optimizers, position)
        if not self.beside:
            notes += self._write(state)
            self._step = position.step
            return notes
        self._step = position.step
        self._thread = threading.Thread(target=self._try, args=(checkpoint.copy(state),), name="checkpoint")
        self._thread.start()
        return notes

    def wait(self) -> list[str]:
        """Wait until what was to be saved is saved. Return sentences for the user. Raises what the thread raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        notes, error = self._notes, self._error
        self._notes, self._error = [], None
        if error is not None:
            self._step = None
            raise error
        return notes

    def _try(self, state: State) -> None:
        try:
            self._notes = self._write(state)
        except BaseException as error:
            self._error = error

    def _write(self, state: State) -> list[str]:
        checkpoint.write(self.checkpoints, state, self.prints)
        if state.position.best_step is not None:
            shelf.mark_best(self.checkpoints, state.position.best_step)
        return shelf.rotate(self.checkpoints, self.keep)

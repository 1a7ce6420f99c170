"""How a command ends, written into its run directory whatever happens."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llmft.errors import Diverged, GateNotMet, LlmftError, Stopped
from llmft.runs import signals
from llmft.runs.directory import RunDirectory


@contextmanager
def recorded(claim: Callable[[], RunDirectory]) -> Iterator[RunDirectory]:
    """Claim a run directory for the block, write the outcome to status.json and give the lock back; exceptions go on.

    A signal finds the directory either not claimed yet or with its end recorded, never in between.
    """
    claimed: list[RunDirectory] = []
    try:
        try:
            with signals.deferred():
                claimed.append(claim())
            yield claimed[0]
        finally:
            signals.close()  # one that comes now is too late to stop anything
    except BaseException as error:
        for directory in claimed:  # none where the claim was refused
            directory.finish(*_outcome(error))
        raise
    claimed[0].finish("done", 0)


def _outcome(error: BaseException) -> tuple[str, int, str]:
    """State, exit code and sentence of a run that ends with `error`."""
    if isinstance(error, GeneratorExit) and (number := signals.received()) is not None:
        error = Stopped(number)  # raised in contextlib, on the way here
    if isinstance(error, Stopped):
        return "stopped", error.exit_code, str(error)
    if isinstance(error, GateNotMet):  # the run is done, its score is what fell short
        return "done", error.exit_code, str(error)
    if isinstance(error, LlmftError):
        if type(error) is LlmftError:  # a full disk: nothing is wrong with the run, and the same command goes on with it
            return "stopped", error.exit_code, str(error)
        return "diverged" if isinstance(error, Diverged) else "failed", error.exit_code, str(error)
    if isinstance(error, OSError):
        return "stopped", 1, f"{type(error).__name__}: {error}"
    return "failed", 1, f"{type(error).__name__}: {error}"

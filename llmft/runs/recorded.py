"""How a command ends, written into its run directory whatever happens."""

from collections.abc import Iterator
from contextlib import contextmanager

from llmft.errors import Diverged, GateNotMet, LlmftError, Stopped
from llmft.runs.directory import RunDirectory


@contextmanager
def recorded(directory: RunDirectory) -> Iterator[None]:
    """Write the outcome of the block to status.json and give the directory's lock back; exceptions go on."""
    try:
        yield
    except Stopped as stop:
        directory.finish("stopped", stop.exit_code, str(stop))
        raise
    except GateNotMet as miss:  # the run is done, its score is what fell short
        directory.finish("done", miss.exit_code, str(miss))
        raise
    except LlmftError as error:
        if type(error) is LlmftError:  # a full disk: nothing is wrong with the run, and the same command goes on with it
            state = "stopped"
        else:
            state = "diverged" if isinstance(error, Diverged) else "failed"
        directory.finish(state, error.exit_code, str(error))
        raise
    except OSError as error:
        directory.finish("stopped", 1, f"{type(error).__name__}: {error}")
        raise
    except BaseException as error:
        directory.finish("failed", 1, f"{type(error).__name__}: {error}")
        raise
    directory.finish("done", 0)

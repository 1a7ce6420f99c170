"""What can go wrong for a user, one class per exit code.

Raise one of these for the user's mistakes: the command line prints it without a traceback and exits with its code.
A message says where (key, file:line, row), what was found, what was expected and what to do. `assert` is for ours.
"""

import signal


class LlmftError(Exception):
    """A failure the user can act on: an I/O error, a full disk, a folder that cannot be written. Exit 1."""

    exit_code = 1


class ConfigError(LlmftError):
    """Wrong usage or configuration; `problems` holds every one found, one sentence each. Exit 2."""

    exit_code = 2

    def __init__(self, *problems: str):
        super().__init__("\n".join(problems))
        self.problems = problems


class RunInUse(LlmftError):
    """Another process owns the run directory. Exit 2."""

    exit_code = 2


class GateNotMet(LlmftError):
    """The run finished, but a score misses its gate. Exit 3."""

    exit_code = 3


class DataError(LlmftError):
    """Data missing or unusable: the message starts with file:line where there is one. Exit 4."""

    exit_code = 4


class ModelError(LlmftError):
    """Model or tokenizer missing or unusable: the message says what was looked for and where. Exit 4."""

    exit_code = 4


class Diverged(LlmftError):
    """A loss or gradient is not finite; the message names the step and the last good checkpoint. Exit 5."""

    exit_code = 5


class DoesNotFit(LlmftError):
    """The work does not fit in memory; the message names the setting that would make it fit. Exit 6."""

    exit_code = 6


class Stopped(BaseException):
    """A signal asked the run to end. Not an Exception, so that nothing on the way swallows it. Exit 75, or 130 for Ctrl-C."""

    def __init__(self, number: int):
        super().__init__(number)  # what pickle calls it with, on the way out of a process of a sweep
        self.exit_code = 130 if number == signal.SIGINT else 75

    def __str__(self) -> str:
        return signal.Signals(self.args[0]).name

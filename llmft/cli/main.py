"""The command `llmft`: which command is meant, and what its end looks like to a shell.

Nothing heavy at the top: help, completion and mistakes must answer at once, and until `main` has taken over the signals
one of them ends the process as it would any other.
"""

import errno
import os
import shlex
import sys

from llmft.config.shown import shown
from llmft.errors import ConfigError, LlmftError, Stopped
from llmft.runs import signals

HELP = ("-h", "--help", "help")
PLAIN_ERRNO = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)
"""I/O errors that are about the machine, not about a bug: a sentence is enough."""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code (design: 0 done, 1 failed, 2 usage, 3 gate, 4 data or model, 5, 6, 75, 130)."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        signals.install()
        return _answer(words)
    except Stopped as stopped:  # it came at the very beginning, or while an error was being told
        _say(f"stopped by {stopped}")
        return stopped.exit_code


def _answer(words: list[str]) -> int:
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except LlmftError as error:
        problems = error.problems if isinstance(error, ConfigError) else (str(error),)
        _say("\n".join(f"error: {problem}" for problem in problems))
        return error.exit_code
    except Stopped as stopped:
        again = f"; go on with: {shlex.join(['llmft', *words])}" if stopped.exit_code == 75 else ""
        _say(f"stopped by {stopped}{again}")
        return stopped.exit_code
    except KeyboardInterrupt:
        _say("stopped by Ctrl-C")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more on its way out
        return 1
    except OSError as error:
        if error.errno not in PLAIN_ERRNO:
            _say_bug()
            return 1
        _say(
            f"error: {error.filename or 'writing'}: {error.strerror}. Free space, or choose another output_root or output_dir."
        )
        return 1
    except Exception as error:
        # Names, not classes: torch raises a RuntimeError of its own on each kind of machine, and is not to be imported here.
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error):
            _say("error: out of memory. Set training.micro_tokens or task.max_source_tokens lower, or take a smaller model.")
            return 6
        _say_bug()
        return 1
    finally:
        signals.close()


def _dispatch(words: list[str]) -> int:
    with signals.deferred():  # some imports catch everything
        from llmft.cli import help as texts
    if not words or words[0] in HELP:
        print(texts.topic(words[1]) if len(words) > 1 else texts.overview())
        return 0
    command, rest = words[0], words[1:]
    if command in ("-V", "--version", "version"):
        from importlib.metadata import version

        print(f"llmft {version('llmft')}")
        return 0
    if command not in {**texts.COMMANDS, **texts.OTHERS}:
        raise ConfigError(_no_command(words, [*texts.COMMANDS, *texts.OTHERS]))
    if any(word in HELP[:2] for word in rest):
        print(texts.topic(command))
        return 0
    if command == "env":
        from llmft.cli.environment import show

        return show(rest)
    if command == "completion":
        from llmft.cli.completion import answer

        return answer(rest)
    # Read by OpenMP when torch is loaded. A thread that waits spins for some microseconds, which bridges the gaps within a step,
    # and then sleeps: spinning on makes training several times slower on a machine that computes something else besides,
    # sleeping at once a fifth slower on an idle one.
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():  # the second would overrule the user's first
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}
    # Read by oneDNN, torch's library for products in 16 bits. It makes a program for each size of a product and keeps 1,024 of them,
    # which are 700 MiB; a pass over ragged documents has up to some 400 sizes, and the next pass others.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "384")
    with signals.deferred():
        from llmft.hardware import heap

        heap.begin()
        from llmft.cli.job import run

    return run(command, rest, ["llmft", *words])


def _no_command(words: list[str], known: list[str]) -> str:
    from difflib import get_close_matches

    first = words[0]
    if "=" in first or first.startswith("-"):
        return f"{first}: a command comes first: llmft train {' '.join(words)}"
    near = get_close_matches(first, known, 1)
    hint = f" Did you mean llmft {near[0]}?" if near else ""
    return f"{first}: no such command.{hint} Commands: {', '.join(known)}"


def _say(text: str) -> None:
    print(shown(text), file=sys.stderr, flush=True)


def _say_bug() -> None:
    import traceback

    _say(traceback.format_exc())

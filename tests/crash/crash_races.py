"""Sixteen processes that claim a run directory at the same moment.

LAB_RACE=FOLDER:NUMBER:REFUSED: the command composes and reads once, then splits into so many processes where it claims its run
directory. Each goes on as the whole command would, its words in FOLDER/n.log; who has claimed waits, up to a limit, until
REFUSED others have ended. FOLDER/race.json holds pid -> exit code.
"""

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE_S = 60


def install() -> None:
    """Do what the environment asks for, in the process of a command, before it begins."""
    wanted = os.environ.get("LAB_RACE")
    if wanted is None:
        return
    import llmft.train

    folder, number, refused = wanted.rsplit(":", 2)
    llmft.train.claim = _split(llmft.train.claim, Path(folder), int(number), int(refused))


def _split(claim: Callable[..., Any], folder: Path, number: int, refused: int) -> Callable[..., Any]:
    @functools.wraps(claim)
    def racing(*args: Any, **options: Any) -> Any:
        start, starter = os.pipe()
        over, ender = os.pipe()
        children = []
        for each in range(number):
            if (pid := os.fork()) == 0:
                os.close(starter)
                os.close(ender)
                log = os.open(folder / f"{each}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
                os.dup2(log, 1)
                os.dup2(log, 2)
                os.read(start, 1)  # ends for all of them at once, when the parent closes its side
                claimed = claim(*args, **options)
                os.read(over, 1)
                return claimed
            children.append(pid)
        os.close(starter)
        codes = _wait(children, refused, PATIENCE_S)
        os.close(ender)
        codes |= _wait([pid for pid in children if pid not in codes], number, PATIENCE_S)
        (folder / "race.json").write_text(json.dumps(codes))
        sys.stdout.flush()
        os._exit(0)

    return racing


def _wait(children: list[int], enough: int, seconds: float) -> dict[int, int]:
    """Exit codes of children by pid, once so many have ended, or the time is over."""
    until, codes = time.monotonic() + seconds, {}
    while len(codes) < min(enough, len(children)) and time.monotonic() < until:
        for pid in children:
            if pid not in codes and (ended := os.waitpid(pid, os.WNOHANG))[0]:
                codes[pid] = os.waitstatus_to_exitcode(ended[1])
        time.sleep(0.005)
    return codes

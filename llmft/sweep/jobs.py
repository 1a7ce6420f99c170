"""A sweep from the choice of its directory to its exit code. A failed job is recorded and the others go on.

SWEEP/NNN are the run directories, SWEEP/jobs/NNN.json what was started in them, SWEEP/sweep.json the outcome. Only the
disk connects the jobs with the process that started them.
"""

import contextlib
import dataclasses
import errno
import json
import os
import secrets
import socket
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmft.config.secrets import redact
from llmft.config.shown import shown
from llmft.errors import Diverged, LlmftError, RunInUse
from llmft.runs import durable, provenance, signals, status
from llmft.runs.lock import Lock, holder
from llmft.runs.status import Status
from llmft.sweep import rows, table, workers
from llmft.sweep.rows import Job

SCHEMA_VERSION = 1
FILE = "sweep.json"

_locks: dict[Path, Lock] = {}  # from `choose` to `finish`, which share nothing but the path


def choose(output_root: str, command: list[str]) -> Path:
    """Make and lock the directory of a sweep, or take the newest that the same command left unfinished.

    `training.resume=never` in the command always makes a new one. Raises LlmftError if it cannot be written.
    """
    told = [redact(word) for word in command]
    if "training.resume=never" not in command:
        for path in sorted(Path(output_root).glob(f"*-sweep/{FILE}"), reverse=True):
            if _unfinished(path, told) and holder(path.parent) is None:
                with contextlib.suppress(RunInUse):  # another process was quicker
                    _hold(path.parent)
                    durable.remove_leftovers(path.parent)
                    _say(f"going on with the sweep {path.parent}; training.resume=never starts a new one")
                    return path.parent
    sweep_dir = Path(output_root) / f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}-sweep"
    try:
        sweep_dir.mkdir(parents=True)
    except OSError as error:
        raise durable.unwritable(sweep_dir, error.errno or errno.EIO) from error
    _hold(sweep_dir)  # before there is anything that the same command could take for an unfinished sweep
    durable.write_json(sweep_dir / FILE, _outcome(told, [], complete=False))
    return sweep_dir


def run_job(
    sweep_dir: Path, number: int, overrides: list[str], config: dict[str, Any], work: Callable[[str], float | None]
) -> float | None:
    """Run `work` in the run directory of job `number` and return what it is judged by, None if it failed.

    A job that ended with 0 under the same configuration is not run again, one that was stopped goes on, one that failed
    is set aside and starts anew. `config`: resolved plain values. Stopped and KeyboardInterrupt pass and end the sweep; in a
    launcher's process Stopped does not, as others may still be saving: `workers.stopped_together` ends the sweep.
    """
    if sweep_dir not in _locks:
        return workers.follow(sweep_dir, lambda: _run_job(sweep_dir, number, overrides, config, work))
    signals.reopen()  # the job before closed them
    return _run_job(sweep_dir, number, overrides, config, work)


def _run_job(
    sweep_dir: Path, number: int, overrides: list[str], config: dict[str, Any], work: Callable[[str], float | None]
) -> float | None:
    run_path = rows.folder(sweep_dir, number)
    job = Job(number, [redact(override) for override in overrides], provenance.fingerprint(config=config))
    earlier = rows.read_job(sweep_dir, number)
    same = earlier is not None and earlier.config == job.config
    before = _status(run_path)
    title = f"job {run_path.name}: {' '.join(job.overrides) or 'as configured'}"
    if same and before is not None and before.exit == 0:
        _say(f"{title}  (done before)")
        row = rows.read_row(sweep_dir, number)
        return row.objective.value if row and row.objective else None
    _say(title)
    goes_on = before is not None and (before.state == "running" or (same and before.state in ("stopped", "dead")))
    if run_path.exists() and not goes_on:
        _set_aside(run_path, before)
        before = None
    rows.write_job(sweep_dir, job)
    start = _now()
    try:
        value = work(str(run_path))
    except RunInUse as error:  # its status belongs to the process that runs it
        _say(f"job {run_path.name} not started: {error}")
        return None
    except (Exception, SystemExit) as error:
        code, text = 1, f"{type(error).__name__}: {error}"
        if isinstance(error, LlmftError):
            code, text = error.exit_code, str(error)
        else:
            _say(traceback.format_exc())
        text = redact(text)
        _say(f"job {run_path.name} failed, exit {code}: {text}")
        with contextlib.suppress(LlmftError):  # a full disk: the other jobs say so too
            _record(sweep_dir, run_path, before, start, code, text, "diverged" if isinstance(error, Diverged) else "failed")
        return None
    _record(sweep_dir, run_path, before, start, 0, None, "done")
    return value


def finish(sweep_dir: Path) -> int:
    """Show the table, write sweep.json, give the directory back; 0 if every job ended with 0, else 1.

    For a `finally`: while an exception passes, jobs are missing, and the sweep stays unfinished. A sweep that started no
    job (a misspelt setting) leaves nothing behind.
    """
    interrupted = sys.exc_info()[0] is not None
    signals.close()
    (sweep_dir / "multirun.yaml").unlink(missing_ok=True)  # Hydra's own record, which hides no secrets
    try:
        found = rows.read(sweep_dir)
        if not found:
            _discard(sweep_dir)
            return 1
        good = all(row.exit == 0 for row in found)
        told = json.loads((sweep_dir / FILE).read_text(encoding="utf-8"))["command"]
        table.show(sweep_dir, found)
        durable.write_json(sweep_dir / FILE, _outcome(told, found, complete=good and not interrupted))
        return 0 if good else 1
    finally:
        if sweep_dir in _locks:
            _locks.pop(sweep_dir).release()


def _unfinished(path: Path, told: list[str]) -> bool:
    try:
        sweep = json.loads(path.read_text(encoding="utf-8"))
        return sweep["schema_version"] == SCHEMA_VERSION and sweep["command"] == told and not sweep["complete"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _hold(sweep_dir: Path) -> None:
    lock = Lock(sweep_dir)
    lock.acquire()
    _locks[sweep_dir] = lock


def _outcome(told: list[str], found: list[rows.Row], complete: bool) -> dict[str, Any]:
    best = rows.best(found)
    return {
        "schema_version": SCHEMA_VERSION,
        "command": told,
        "complete": complete,
        "best": best.number if best else None,
        "rows": [dataclasses.asdict(row) for row in found],
    }


def _status(run_path: Path) -> Status | None:
    """The status of a run; None if there is none or it cannot be read."""
    try:
        return status.read(run_path)
    except LlmftError:
        return None


def _set_aside(run_path: Path, before: Status | None) -> None:
    """Rename what a job left behind: 003 becomes 003.failed-1."""
    state, count = before.state if before else "failed", 1
    while (aside := run_path.with_name(f"{run_path.name}.{state}-{count}")).exists():
        count += 1
    run_path.rename(aside)


def _record(
    sweep_dir: Path, run_path: Path, before: Status | None, start: str, code: int, error: str | None, state: str
) -> None:
    """Write how the job ended, unless the run did so itself."""
    now = _status(run_path)
    if now is not None and now.exit == code:
        return
    if now is not None and now == before:
        return  # it failed before the stopped run was opened again: that one can still go on
    if now is None:
        told = json.loads((sweep_dir / FILE).read_text(encoding="utf-8"))["command"]
        now = Status(state, os.getpid(), socket.gethostname(), start, fingerprint="", command=told)
    status.write(run_path, dataclasses.replace(now, state=state, exit=code, end=_now(), error=error))


def _discard(sweep_dir: Path) -> None:
    for name in (FILE, "search.json", ".lock"):
        (sweep_dir / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # something else is in there: not ours to remove
        sweep_dir.rmdir()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _say(text: str) -> None:
    print(shown(text), file=sys.stderr, flush=True)

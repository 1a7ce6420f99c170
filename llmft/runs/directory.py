"""Which folder a run writes to, whether that goes on with an earlier run, and how it is found again."""

import contextlib
import errno
import os
import re
import secrets
import shlex
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from llmft.config.secrets import redact
from llmft.errors import ConfigError, RunInUse
from llmft.runs import disk, durable, status
from llmft.runs.leftovers import remove_tree
from llmft.runs.lock import FILE as LOCK_FILE
from llmft.runs.lock import Lock
from llmft.runs.status import Status

LATEST = "latest"
GOES_ON = ("stopped", "dead")
"""States that resume by themselves; failed and diverged ones would fail again unless somebody changed something."""
WRITTEN = ("config.yaml", "rerun.yaml", "environment.json", "data.json", "plan.json", "metrics.jsonl", "train.log",
           "predictions", "checkpoints")  # fmt: skip
"""What a run may have written before its first checkpoint: all that is removed where another begins anew in its place."""


@dataclass
class RunDirectory:
    """A run directory that belongs to this process until `finish`."""

    path: Path
    resumed: bool
    previous: Status | None
    """How the run stood when this process took it over; None for a new one."""
    note: str | None
    """What to tell the user about the folder, if anything."""
    _status: Status
    _lock: Lock

    def update(self, step: int) -> None:
        """Record the last step. Costs a flush to the disk, so call it with checkpoints and validations, not at each step."""
        self._status.step = step
        status.write(self.path, self._status)

    def finish(self, state: str, exit: int, error: str | None = None) -> None:
        """Record how the run ended (done, stopped, failed or diverged) and give the lock back, also if recording fails."""
        try:
            self._status.state, self._status.exit = state, exit
            self._status.error = None if error is None else redact(error)
            self._status.end = _now()
            status.write(self.path, self._status)
        finally:
            self._lock.release()

    def make_latest(self) -> None:
        """Point `latest`, beside the run directory, at it."""
        link = self.path.parent / LATEST
        with contextlib.suppress(OSError):  # no symbolic links here, or a real folder of that name: no reason to lose a run
            for left in link.parent.glob(f".{LATEST}.tmp-*"):  # by one who was killed while moving the link
                disk.unlink(left)
            durable.symlink(link, self.path.name)


def claim(
    output_root: str,
    output_dir: str | None,
    label: str,
    fingerprint: str,
    resume: str,
    command: list[str],
    setting: str = "output_dir",
) -> RunDirectory:
    """Find or make the run directory and lock it.

    `resume` is auto (go on with the newest stopped or dead run of the same `fingerprint`), never, or a run directory.
    `setting` is what the command calls `output_dir`; another than a training also goes on after a failure, having no
    training.resume to ask for it.
    Raises ConfigError if the folder asked for cannot be used, RunInUse if another process has it, LlmftError if it cannot
    be written.
    """
    root = Path(output_root)
    if resume not in ("auto", "never"):
        path = resolve(resume, output_root)
        if output_dir is not None and Path(output_dir).resolve() != path:
            raise ConfigError(
                f"output_dir={output_dir} and training.resume={resume} name two run directories. Drop output_dir."
            )
        return _take(path, fingerprint, command, ("stopped", "dead", "failed", "diverged"), f"training.resume={resume}")
    if output_dir is not None:
        may_resume = () if resume == "never" else GOES_ON if setting == "output_dir" else (*GOES_ON, "failed")
        return _take(Path(output_dir), fingerprint, command, may_resume, f"{setting}={output_dir}")
    if resume == "auto":
        for path, found in _runs(root):
            if found.state in GOES_ON and found.fingerprint == fingerprint:
                with contextlib.suppress(RunInUse, ConfigError):  # another process was quicker
                    return _take(path, fingerprint, command, GOES_ON, f"output_root={output_root}")
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}-{_slug(label)}"
    return _take(root / name, fingerprint, command, (), f"output_root={output_root}")


def resolve(run: str, output_root: str) -> Path:
    """The run directory that `run` names: latest, a path, or the name of one under `output_root`.

    Raises ConfigError, with the newest runs, if there is none.
    """
    for candidate in ([] if run == LATEST else [Path(run)]) + [Path(output_root) / run]:
        with contextlib.suppress(OSError):  # a name too long for the system names nothing
            if (candidate / status.FILE).is_file():
                return candidate.resolve()
    newest = [path for path, _ in _runs(Path(output_root))[:5]]
    if run == LATEST and newest and not Path(output_root, LATEST).exists():
        return newest[0].resolve()
    looked = f"{Path(output_root) / run}" if run == LATEST else f"{run} and {Path(output_root) / run}"
    known = "The newest runs: " + ", ".join(each.name for each in newest) if newest else f"There are no runs in {output_root}"
    raise ConfigError(f"run {run!r}: no run directory (a folder with {status.FILE}) at {looked}. {known}; or set output_root.")


def _take(path: Path, fingerprint: str, command: list[str], may_resume: tuple[str, ...], asked: str) -> RunDirectory:
    """Lock `path` and begin there, or go on if the run in it is in one of the states of `may_resume`."""
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{asked}: {path} is a file. Name a folder that is a run directory, empty or not there yet.")
    try:
        durable.make_folder(path)
    except OSError as error:
        raise durable.unwritable(path, error.errno or errno.EIO) from error
    with durable.explained(path / status.FILE):
        _refuse_foreign(path, asked)
        lock = Lock(path)
        lock.acquire()
        try:
            _refuse_foreign(path, asked)
            previous, note = status.read_as_written(path), None
            if previous is not None:
                if previous.state == "running":
                    previous.state = "dead"  # the lock was free
                if previous.fingerprint == fingerprint and previous.state in may_resume:
                    pass
                elif not asked.startswith("training.resume") and _holds_nothing(path, previous, asked):
                    what = {"dead": "died", "stopped": "was stopped"}.get(previous.state, previous.state)
                    note = f"{asked}: the run there {what} before it had done anything worth keeping, so this one begins anew"
                    _clear(path)
                    previous = None
                else:
                    _refuse_other(path, previous, fingerprint, may_resume, asked)
                # The folder itself last: a leftover in it may be one of the folders to look into.
                for folder in [*(each for each in path.iterdir() if each.is_dir() and not each.is_symlink()), path]:
                    durable.remove_leftovers(folder)
            now = Status(
                state="running",
                pid=os.getpid(),
                host=socket.gethostname(),
                start=_now(),
                fingerprint=fingerprint,
                command=[redact(word) for word in command],
                step=0 if previous is None else previous.step,
            )
            status.write(path, now)
        except BaseException:
            lock.release()
            raise
    return RunDirectory(path.resolve(), previous is not None, previous, note, now, lock)


def _refuse_foreign(path: Path, asked: str) -> None:
    """Raise ConfigError if `path` holds files but no run."""
    names = sorted(
        each.name for each in path.iterdir() if each.name != LOCK_FILE and not each.name.startswith(f".{status.FILE}.")
    )
    if names and status.FILE not in names:
        raise ConfigError(
            f"{asked}: {path} holds files that are not a run's ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}). "
            "Name a folder that is empty or not there yet."
        )


def _holds_nothing(path: Path, previous: Status, asked: str) -> bool:
    """Whether the run in `path`, which is not to go on, did nothing that is worth keeping: no step, no predictions of eval."""
    if previous.state == "done" or previous.step > 0 or (path / "results.json").exists():
        return False
    if asked.startswith("output="):
        return not any(each.stat().st_size for each in (path / "predictions").glob("*"))
    # A step that was set aside as damaged counts; step 0 is what the run started from.
    return all(each.name in ("step-000000", "best") for each in (path / "checkpoints").glob("[!.]*"))


def _clear(path: Path) -> None:
    """Remove what a run wrote before its first step; status.json stays, so that a kill leaves a folder known as a run's."""
    for name in WRITTEN:
        each = path / name
        if each.is_dir() and not each.is_symlink():
            remove_tree(each)
        elif os.path.lexists(each):
            disk.unlink(each)


def _refuse_other(path: Path, previous: Status, fingerprint: str, may_resume: tuple[str, ...], asked: str) -> None:
    """Raise ConfigError, with what to do: the run in `path` is not one to go on with."""
    if previous.fingerprint != fingerprint:
        raise ConfigError(
            f"{asked}: {path} holds a run of another configuration, data or model (fingerprint {previous.fingerprint}, this one "
            f"is {fingerprint}). It was started by: {shlex.join(previous.command)}. Repeat that command, or name another folder."
        )
    if previous.state == "done":
        raise ConfigError(f"{asked}: the run in {path} is finished. Name another folder to repeat it.")
    if not may_resume:
        raise ConfigError(
            f"{asked}: {path} holds a {previous.state} run, and training.resume=never starts anew. "
            "Name another folder, or set training.resume=auto."
        )
    raise ConfigError(
        f"{asked}: the run in {path} {previous.state} at step {previous.step} ({previous.error}), so it does not go on by itself. "
        f"Set training.resume={path} to go on all the same, or name another folder."
    )


def _runs(root: Path) -> list[tuple[Path, Status]]:
    """The runs in `root`, newest first; what cannot be read as a run is not one."""
    found = []
    for path in root.iterdir() if root.is_dir() else ():
        with contextlib.suppress(Exception):
            run = None if path.is_symlink() else status.read(path)
            if run is not None:
                found.append((path, run))
    return sorted(found, key=lambda each: (each[1].start, each[0].name), reverse=True)


def _slug(label: str) -> str:
    return re.sub(r"[^a-z0-9._]+", "-", label.lower())[:60].strip("-._") or "run"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

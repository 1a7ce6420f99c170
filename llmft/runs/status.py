"""status.json: what a run is doing, or how it ended."""

import dataclasses
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from llmft.errors import LlmftError
from llmft.runs import durable, lock

FILE = "status.json"
SCHEMA_VERSION = 1
STATES = ("running", "done", "stopped", "failed", "diverged")


@dataclass
class Status:
    """One run's state. `dead` is never written: it is a run that says running while nobody holds its lock."""

    state: str
    pid: int
    host: str
    start: str
    """When the process that writes this began, ISO 8601 in UTC."""
    fingerprint: str
    command: list[str]
    """The command line, tokens and passwords removed."""
    step: int = 0
    """Last optimizer step recorded."""
    exit: int | None = None
    end: str | None = None
    error: str | None = None
    schema_version: int = SCHEMA_VERSION


def read(folder: Path) -> Status | None:
    """The status of the run in `folder`, None if there is none. Raises LlmftError if the file is not one of ours."""
    status = read_as_written(folder)
    if status is not None and status.state == "running" and lock.holder(folder) is None:
        # It may have ended between the two looks.
        status = read_as_written(folder)
        if status is not None and status.state == "running":
            status.state = "dead"
    return status


def read_as_written(folder: Path) -> Status | None:
    """As `read`, without asking whether the process still lives."""
    path = folder / FILE
    try:
        values = json.loads(path.read_bytes())
        found = Status(**{field.name: values[field.name] for field in dataclasses.fields(Status)})
        texts = (found.host, found.start, found.fingerprint, *found.command)
        if (
            found.state not in STATES
            or not type(found.pid) is type(found.step) is int
            or not all(isinstance(text, str) for text in texts)
        ):
            raise TypeError("fields of other types")
        return found
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise LlmftError(
            f"{path}: not a run's status ({type(error).__name__}: {error}). Expected version {SCHEMA_VERSION} of the file; "
            "move the folder away or name another output_dir."
        ) from error


def advice(folder: Path) -> str:
    """How the run in `folder` stands and what to do about it, for a sentence that says that something is not there yet."""
    found = read(folder)
    if found is None:
        return "nothing says how it stands. Name another run."
    if found.state == "running":
        return f"it is running as process {found.pid} on {found.host}, saved at step {found.step}. Wait for it."
    if found.state == "done":
        return "it is finished, but somebody has taken it away. Name another run."
    if found.state in ("stopped", "dead"):
        what = "died" if found.state == "dead" else "was stopped"
        return f"it {what}, saved at step {found.step}. Go on with it: {shlex.join(found.command)}"
    return f"it {found.state} ({found.error}). Name another run, or start it anew."


def write(folder: Path, status: Status) -> None:
    """Write status.json, whole or not at all."""
    assert status.state in STATES, status.state
    durable.write_json(folder / FILE, dataclasses.asdict(status))

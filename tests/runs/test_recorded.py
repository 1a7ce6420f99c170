"""How a run ends decides whether the same command goes on with it."""

import errno

import pytest

from llmft.errors import DataError, Diverged, GateNotMet, LlmftError, Stopped
from llmft.runs import status
from llmft.runs.directory import claim
from llmft.runs.recorded import recorded


@pytest.mark.parametrize(
    ("raised", "state", "exit_code"),
    [
        (LlmftError("disk full"), "stopped", 1),
        (OSError(errno.EIO, "Input/output error"), "stopped", 1),
        (Stopped(15), "stopped", 75),
        (GateNotMet("rougeL"), "done", 3),
        (Diverged("step 3"), "diverged", 5),
        (DataError("a.jsonl:1"), "failed", 4),
        (ValueError("a bug"), "failed", 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_how_it_ends(tmp_path, raised, state, exit_code):
    directory = claim(str(tmp_path), None, "x", "f", "auto", ["llmft"])
    with pytest.raises(type(raised)), recorded(directory):
        raise raised
    found = status.read(directory.path)
    assert (found.state, found.exit) == (state, exit_code)
    again = claim(str(tmp_path), None, "x", "f", "auto", ["llmft"])
    assert again.resumed is (state == "stopped")
    assert (again.path == directory.path) is again.resumed

"""How a run ends decides whether the same command goes on with it."""

import contextlib
import errno
import os
import signal

import pytest

from llmft.errors import ConfigError, DataError, Diverged, GateNotMet, LlmftError, Stopped
from llmft.runs import signals, status
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
    with pytest.raises(type(raised)), recorded(lambda: claim(str(tmp_path), None, "x", "f", "auto", ["llmft"])) as directory:
        raise raised
    found = status.read(directory.path)
    assert (found.state, found.exit) == (state, exit_code)
    again = claim(str(tmp_path), None, "x", "f", "auto", ["llmft"])
    assert again.resumed is (state == "stopped")
    assert (again.path == directory.path) is again.resumed


@pytest.fixture
def listening():
    """Signals as in the command."""
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    signals.install()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("listening")
def test_a_signal_while_the_folder_is_claimed_is_recorded(tmp_path):
    def claim_slowly():
        directory = claim(str(tmp_path), str(tmp_path / "own"), "x", "f", "auto", ["llmft"])
        os.kill(os.getpid(), signal.SIGTERM)
        return directory

    with pytest.raises(Stopped), recorded(claim_slowly):
        pytest.fail("the work began")
    found = status.read(tmp_path / "own")
    assert (found.state, found.exit, found.error) == ("stopped", 75, "SIGTERM")


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize("error", [None, DataError("a.jsonl:1")], ids=["done", "failed"])
def test_a_signal_while_the_end_is_recorded_changes_nothing(tmp_path, monkeypatch, error):
    write = status.write

    def signalled(folder, now):
        if now.state != "running":
            os.kill(os.getpid(), signal.SIGTERM)
        write(folder, now)

    monkeypatch.setattr(status, "write", signalled)
    ends = pytest.raises(DataError) if error else contextlib.nullcontext()
    with ends, recorded(lambda: claim(str(tmp_path), str(tmp_path / "own"), "x", "f", "auto", ["llmft"])):
        if error is not None:
            raise error
    found = status.read(tmp_path / "own")
    assert (found.state, found.exit) == (("done", 0) if error is None else ("failed", 4))


def test_a_claim_that_is_refused_records_nothing(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ConfigError), recorded(lambda: claim(str(tmp_path), str(tmp_path), "x", "f", "auto", ["llmft"])):
        pytest.fail("the work began")
    assert [each.name for each in tmp_path.iterdir()] == ["mine.txt"]

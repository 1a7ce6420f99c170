"""A folder with a model, one with canaries, and nobody to talk to."""

import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

WATCHED = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "shutil.rmtree", "pickle.find_class")
heard: list[str] | None = None


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if heard is not None and (event in WATCHED or (event == "import" and "canary" in str(arguments[0]))):
        heard.append(f"{event} {arguments}")


sys.addaudithook(_listen)  # cannot be taken away again: it is deaf outside these tests


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A path that must not come to be."""
    path = tmp_path / "canary"
    monkeypatch.setenv("CANARY", str(path))
    yield path
    assert not path.exists(), path.read_text()


@pytest.fixture
def alone(monkeypatch):
    """No connections, no questions."""

    connect = socket.socket.connect

    def refuse(self, address):
        assert self.family == socket.AF_UNIX, f"a connection to {address}"  # the laboratory's own
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))


@pytest.fixture
def folder(tiny, tmp_path):
    return shutil.copytree(tiny / "gpt2", tmp_path / "model")


@pytest.fixture
def cage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with canaries; afterwards each must have stayed silent.

    They are a module that leaves a file when it is imported and another when a function of it is called, and Python's audit events
    for starting processes and connections.
    """
    global heard
    for name in ("canary_module", "canary_package"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(
            f"import pathlib\npathlib.Path({str(tmp_path)!r}, 'sang').touch()\ndef sing(*a, **k):\n    pathlib.Path({str(tmp_path)!r}, 'sang').touch()\n"
        )
        (tmp_path / name / "x.yaml").write_text("seed: 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("CANARY_SECRET", "tweet-Tweet-42")
    (tmp_path / "conf").mkdir()
    heard = []
    yield tmp_path
    noises, heard = heard, None
    assert noises == []
    assert not (tmp_path / "sang").exists()
    assert not [name for name in sys.modules if name.startswith("canary")]

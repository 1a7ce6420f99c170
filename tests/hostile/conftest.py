"""A folder with a model, and nobody to talk to."""

import shutil
import socket

import pytest


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

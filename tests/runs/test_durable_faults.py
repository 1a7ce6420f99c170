"""Killed, refused or signalled at any operation on the disk: the old content or the new, and a sentence that says why."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llmft.errors import LlmftError
from llmft.runs import durable

HEAD = "import sys; from pathlib import Path; from llmft.runs import durable; path = Path(sys.argv[1])\n"
NEW_FOLDER = (
    HEAD
    + """
with durable.draft(path) as new:
    new.write("a", [b"n", b"ew"])
    (new.folder / "b").write_text("new")
"""
)
REPLACED_FOLDER = HEAD + "with durable.replacement(path) as f: (f / 'a').write_text('new'); (f / 'b').write_text('new')"
REPLACED_FILE = HEAD + "durable.write_text(path, 'new')"
REMOVED_FOLDER = HEAD + "durable.remove(path)"


def deaths(code: str, path: Path, prepare, limit: int = 40):
    """Run `code` again and again, killed at its first, second, ... operation on the disk, until it survives."""
    for last in range(1, limit):
        prepare()
        env = os.environ | {"LLMFT_FAILPOINT": f"*:{last}:kill"}
        yield subprocess.run([sys.executable, "-c", code, str(path)], check=False, env=env).returncode


def survivors(codes: list[int], operations: int) -> None:
    assert codes == [-signal.SIGKILL] * operations + [0]


def remove(path: Path) -> None:
    if path.exists():
        for each in path.iterdir():
            each.unlink()
        path.rmdir()


def test_killed_while_it_makes_a_folder(tmp_path):
    path, codes = tmp_path / "step-1", []
    for code in deaths(NEW_FOLDER, path, lambda: remove(path)):
        codes.append(code)
        durable.remove_leftovers(tmp_path)
        assert [each.name for each in tmp_path.iterdir()] == (["step-1"] if path.exists() else [])
        if path.exists():
            assert durable.verify(path) == []
            assert (path / "a").read_text() == (path / "b").read_text() == "new"
        if code == 0:
            break
    survivors(codes, 13)


def test_killed_while_it_replaces_a_folder(tmp_path):
    path, codes = tmp_path / "best", []

    def old() -> None:
        remove(path)
        with durable.directory(path) as folder:
            (folder / "a").write_text("old")

    for code in deaths(REPLACED_FOLDER, path, old):
        codes.append(code)
        durable.remove_leftovers(tmp_path)
        assert [each.name for each in tmp_path.iterdir()] == ["best"]
        assert durable.verify(path) == []
        content = {each.name: each.read_text() for each in path.iterdir() if each.name != "manifest.json"}
        assert content in ({"a": "old"}, {"a": "new", "b": "new"})
        if code == 0:
            assert content == {"a": "new", "b": "new"}
            break
    survivors(codes, 15)


def test_killed_while_it_writes_a_file(tmp_path):
    path, codes = tmp_path / "status.json", []
    for code in deaths(REPLACED_FILE, path, lambda: path.write_text("old")):
        codes.append(code)
        durable.remove_leftovers(tmp_path)
        assert [each.name for each in tmp_path.iterdir()] == ["status.json"]
        assert path.read_text() in ("old", "new")
        if code == 0:
            break
    survivors(codes, 5)


def test_killed_while_it_removes_a_folder(tmp_path):
    path, codes = tmp_path / "step-1", []

    def old() -> None:
        remove(path)
        with durable.directory(path) as folder:
            (folder / "a").write_text("old")

    for code in deaths(REMOVED_FOLDER, path, old):
        codes.append(code)
        durable.remove_leftovers(tmp_path)
        assert [each.name for each in tmp_path.iterdir()] == (["step-1"] if path.exists() else [])
        assert not path.exists() or durable.verify(path) == []
        if code == 0:
            assert not path.exists()
            break
    survivors(codes, 5)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("code", [NEW_FOLDER, REPLACED_FOLDER, REPLACED_FILE], ids=["new", "replaced", "file"])
def test_any_operation_may_fail(tmp_path, monkeypatch, code, number):
    path, names = tmp_path / "x", set()
    for last in range(1, 40):
        if code == REPLACED_FILE:
            path.write_text("old")
        elif code == REPLACED_FOLDER and not path.exists():
            with durable.directory(path) as folder:
                (folder / "a").write_text("old")
        monkeypatch.setenv("LLMFT_FAILPOINT", f"*:{last}:{errno.errorcode[number]}:{tmp_path}")
        monkeypatch.setattr(sys, "argv", ["", str(path)])
        try:
            exec(code, {})
            said = None
        except LlmftError as error:
            said = str(error)
        monkeypatch.delenv("LLMFT_FAILPOINT")
        names.add(said is not None)
        assert said is None or os.strerror(number) in said
        durable.remove_leftovers(tmp_path)
        assert {each.name for each in tmp_path.iterdir()} <= {"x"}
        if path.is_dir():
            assert durable.verify(path) == []
            content = {each.name: each.read_text() for each in path.iterdir() if each.name != "manifest.json"}
            assert content in ({"a": "old"}, {"a": "new", "b": "new"})
            if code == NEW_FOLDER:
                durable.remove(path)
        elif path.exists():
            assert path.read_text() in ("old", "new")
        else:
            assert said
    assert names == {True, False}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_full_disk_says_so_and_keeps_the_old(tmp_path, monkeypatch, number):
    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    durable.write_text(tmp_path / "x", "old")
    monkeypatch.setattr(os, "fsync", fail)
    why = rf"cannot be written: {os.strerror(number)} \([\d,.]+ MB free\)\. Free space"
    with pytest.raises(LlmftError, match="/x: " + why):
        durable.write_text(tmp_path / "x", "new")
    with pytest.raises(LlmftError, match="/d: " + why), durable.directory(tmp_path / "d"):
        pass
    monkeypatch.undo()
    assert [each.name for each in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "old"


def test_full_disk_as_safetensors_words_it(tmp_path):
    with pytest.raises(LlmftError, match="No space left"), durable.directory(tmp_path / "d"):
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_an_error_about_something_else_passes(tmp_path):
    with pytest.raises(PermissionError), durable.directory(tmp_path / "d"):
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/data.jsonl")


STRUCK = (
    HEAD
    + """
import os, signal
from llmft.errors import Stopped
from llmft.runs import disk, signals
signals.install()
real = getattr(disk, sys.argv[2])
def struck(*given):
    os.kill(os.getpid(), signal.SIGTERM)
    return real(*given)
setattr(disk, sys.argv[2], struck)
try:
    durable.remove(path)
except Stopped:
    sys.exit(0 if not list(path.parent.iterdir()) else 1)
sys.exit(2)
"""
)


@pytest.mark.parametrize("call", ["rename", "sync", "unlink", "rmdir"])
def test_a_signal_waits_until_a_folder_is_gone(tmp_path, call):
    path = tmp_path / "spool"
    path.mkdir()
    (path / "a").write_text("a")
    assert subprocess.run([sys.executable, "-c", STRUCK, str(path), call], check=False).returncode == 0

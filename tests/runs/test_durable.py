"""Killed at any flush or rename, full disk, damage: the old content or the new, and a reader who can tell."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

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


def test_what_a_living_process_writes_is_no_leftover(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from llmft.runs import durable\n"
        "with durable.directory(Path(sys.argv[1])): print('in', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "new")], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        durable.remove_leftovers(tmp_path)
        assert len(list(tmp_path.iterdir())) == 1
        child.kill()
        child.wait()
    durable.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_own_process_id_of_an_earlier_life_is_a_leftover(tmp_path):
    # In a container the process id is the same after every start.
    (tmp_path / f".step-1.tmp-00000000-{os.getpid()}").mkdir()
    with durable.directory(tmp_path / "step-2") as folder:
        durable.remove_leftovers(tmp_path)
        assert [each.name for each in tmp_path.iterdir()] == [folder.name]


def test_names_of_others_are_left_alone(tmp_path):
    for name in (".hidden", "x.tmp-00000000-1", ".vimrc.tmp"):
        (tmp_path / name).touch()
    durable.remove_leftovers(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


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


def test_new_folders_are_flushed_into_those_above_them(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMFT_OPERATIONS", str(tmp_path / "log"))
    durable.make_folder(tmp_path / "a" / "b")
    rows = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    expected = [("mkdir", "a"), ("fsync", "."), ("mkdir", "a/b"), ("fsync", "a")]
    assert [(row["op"], os.path.relpath(row["path"], tmp_path)) for row in rows] == expected


def test_exception_in_the_block_leaves_nothing(tmp_path):
    def stop() -> None:
        with durable.directory(tmp_path / "new") as folder:
            (folder / "x").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert list(tmp_path.iterdir()) == []


def test_directory_does_not_write_over(tmp_path):
    (tmp_path / "new").mkdir()
    with pytest.raises(FileExistsError), durable.directory(tmp_path / "new"):
        pytest.fail("the block must not run")
    assert [each.name for each in tmp_path.iterdir()] == ["new"]


def test_umask_is_respected(tmp_path):
    before = os.umask(0o027)
    try:
        durable.write_text(tmp_path / "x", "")
        with durable.directory(tmp_path / "d"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o750


def test_json_as_people_read_it(tmp_path):
    durable.write_json(tmp_path / "x", {"b": 1, "a": ["ä"]})
    assert (tmp_path / "x").read_text() == '{\n  "b": 1,\n  "a": [\n    "ä"\n  ]\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        durable.write_json(tmp_path / "x", float("nan"))
    assert [each.name for each in tmp_path.iterdir()] == ["x"]


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


def test_symlink_moves(tmp_path):
    for target in ("one", "two"):
        durable.symlink(tmp_path / "latest", target)
        assert os.readlink(tmp_path / "latest") == target
    (tmp_path / "real").mkdir()
    with pytest.raises(OSError, match="real"):
        durable.symlink(tmp_path / "real", "one")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["latest", "real"]


def test_whoever_may_read_a_folder_may_read_what_safetensors_wrote_into_it(tmp_path):
    with durable.directory(tmp_path / "new") as folder:
        save_file({"a": torch.ones(1)}, folder / "weights.safetensors")
    mode = (tmp_path / "new" / "weights.safetensors").stat().st_mode
    (tmp_path / "plain").touch()
    assert mode == (tmp_path / "plain").stat().st_mode


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


def test_a_file_is_removed_unless_it_is_gone_already(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.touch()
    durable.unlink(path)
    assert not path.exists()
    durable.unlink(path)
    path.touch()
    monkeypatch.setenv("LLMFT_FAILPOINT", "unlink:1:EIO")
    with pytest.raises(LlmftError, match=r"x: cannot be written: Input/output error"):
        durable.unlink(path)

"""Killed at any flush or rename, full disk, damage: the old content or the new, and a reader who can tell."""

import errno
import hashlib
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

DIES_AT = """
import os, sys
from pathlib import Path
from llmft.runs import durable
path, last = Path(sys.argv[1]), int(sys.argv[2])
calls = 0
def dying(original):
    def call(*arguments):
        global calls
        calls += 1
        if calls == last:
            os.kill(os.getpid(), 9)
        return original(*arguments)
    return call
os.fsync = dying(os.fsync)
Path.rename = dying(Path.rename)
Path.replace = dying(Path.replace)
"""
NEW_FOLDER = DIES_AT + "with durable.directory(path) as f: (f / 'a').write_text('new'); (f / 'b').write_text('new')"
REPLACED_FOLDER = DIES_AT + "with durable.replacement(path) as f: (f / 'a').write_text('new'); (f / 'b').write_text('new')"
REPLACED_FILE = DIES_AT + "durable.write_text(path, 'new')"


def deaths(code: str, path: Path, prepare, limit: int = 20):
    """Run `code` again and again, killed at its first, second, ... flush or rename, until it survives."""
    for last in range(1, limit):
        prepare()
        yield subprocess.run([sys.executable, "-c", code, str(path), str(last)], check=False).returncode


def survivors(codes: list[int]) -> None:
    assert codes[-1] == 0
    assert len(codes) >= 3
    assert set(codes[:-1]) == {-signal.SIGKILL}


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
    survivors(codes)


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
    survivors(codes)


def test_killed_while_it_writes_a_file(tmp_path):
    path, codes = tmp_path / "status.json", []
    for code in deaths(REPLACED_FILE, path, lambda: path.write_text("old")):
        codes.append(code)
        durable.remove_leftovers(tmp_path)
        assert [each.name for each in tmp_path.iterdir()] == ["status.json"]
        assert path.read_text() in ("old", "new")
        if code == 0:
            break
    survivors(codes)


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


def test_manifest_holds_sizes_and_hashes(tmp_path):
    with durable.directory(tmp_path / "new") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "x").write_bytes(b"abc")
    # sha256("abc"): FIPS 180-2, appendix B.1
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert json.loads((tmp_path / "new" / "manifest.json").read_text()) == {"files": {"sub/x": {"bytes": 3, "sha256": digest}}}
    assert durable.verify(tmp_path / "new") == []


def test_verify_names_every_damage(tmp_path):
    path = tmp_path / "new"
    with durable.directory(path) as folder:
        for name in ("gone", "grown", "flipped", "same"):
            (folder / name).write_bytes(b"abc")
    (path / "gone").unlink()
    (path / "grown").write_bytes(b"abcd")
    (path / "flipped").write_bytes(b"abd")
    (path / "extra").touch()
    assert durable.verify(path) == [
        f"{path}/gone: missing",
        f"{path}/extra: not in manifest.json",
        f"{path}/flipped: SHA-256 differs from manifest.json",
        f"{path}/grown: 4 bytes, 3 were written",
    ]


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"files": [1]}', '{"files": {"a": 1}}', "\xff"])
def test_verify_of_a_broken_manifest(tmp_path, manifest):
    (tmp_path / "manifest.json").write_text(manifest, encoding="latin-1")
    (problem,) = durable.verify(tmp_path)
    assert problem.startswith(f"{tmp_path}/manifest.json: not readable")


def test_verify_of_nothing(tmp_path):
    assert durable.verify(tmp_path / "no") == [f"{tmp_path}/no: no manifest.json"]


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


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "x").write_bytes(b"abc" * 1000)
    assert durable.sha256(tmp_path / "x") == hashlib.sha256(b"abc" * 1000).hexdigest()


def test_whoever_may_read_a_folder_may_read_what_safetensors_wrote_into_it(tmp_path):
    with durable.directory(tmp_path / "new") as folder:
        save_file({"a": torch.ones(1)}, folder / "weights.safetensors")
    mode = (tmp_path / "new" / "weights.safetensors").stat().st_mode
    (tmp_path / "plain").touch()
    assert mode == (tmp_path / "plain").stat().st_mode

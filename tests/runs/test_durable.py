"""Files and folders as others find them once written: flushed, sealed, whole, readable by whoever may read the place."""

import json
import os
import stat

import pytest
import torch
from safetensors.torch import save_file

from llmft.errors import LlmftError
from llmft.runs import durable


def test_new_folders_are_flushed_into_those_above_them(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMFT_OPERATIONS", str(tmp_path / "log"))
    durable.make_folder(tmp_path / "a" / "b")
    rows = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    expected = [("mkdir", "a"), ("fsync", "."), ("mkdir", "a/b"), ("fsync", "a")]
    assert [(row["op"], os.path.relpath(row["path"], tmp_path)) for row in rows] == expected


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

"""The tests' own tools: what is to fail fails, when it is to; what is recorded is what was done."""

import errno
import json
import os

import pytest

from llmft.runs import disk, durable


def tried(tmp_path, failpoint, monkeypatch):
    """Which of six operations fail, and how."""
    monkeypatch.setenv("LLMFT_FAILPOINT", failpoint)
    found = []
    for place in ("a", "b", "ab"):
        for call in (disk.mkdir, disk.rmdir):
            try:
                call(tmp_path / place)
                found.append(None)
            except OSError as error:
                found.append(errno.errorcode[error.errno])
                (tmp_path / place).mkdir(exist_ok=True)
                if call is disk.rmdir:
                    (tmp_path / place).rmdir()
    return found


@pytest.mark.parametrize(
    ("failpoint", "expected"),
    [
        ("*:2:EIO", [None, "EIO", None, None, None, None]),
        ("mkdir:2:ENOSPC", [None, None, "ENOSPC", None, None, None]),
        ("*:4+:EROFS", [None, None, None, "EROFS", "EROFS", "EROFS"]),
        ("rmdir:1:EIO:/ab", [None, None, None, None, None, "EIO"]),
        ("mkdir:2+:short", [None, None, "ENOSPC", None, "ENOSPC", None]),
        ("mkdir:9:EIO", [None] * 6),
    ],
)
def test_what_fails(tmp_path, monkeypatch, failpoint, expected):
    text = "" if "/" in failpoint else f":{tmp_path}"
    assert tried(tmp_path, failpoint + text, monkeypatch) == expected


def test_short_is_half(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMFT_FAILPOINT", f"write:2:short:{tmp_path}")
    file = disk.File(tmp_path / "x")
    file.write(b"12345678")
    with pytest.raises(OSError, match="No space left"):
        file.write(b"abcdefgh")
    file.close()
    assert (tmp_path / "x").read_bytes() == b"12345678abcd"


def test_the_record(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMFT_OPERATIONS", str(tmp_path / "record"))
    durable.write_text(tmp_path / "x", "äb")
    durable.symlink(tmp_path / "l", "x")
    monkeypatch.setenv("LLMFT_FAILPOINT", f"mkdir:1:EIO:{tmp_path}")
    with pytest.raises(OSError, match="Input/output"):
        disk.mkdir(tmp_path / "failed")
    rows = [json.loads(line) for line in (tmp_path / "record").read_text().splitlines()]
    assert [row["op"] for row in rows] == ["open", "write", "fsync", "rename", "fsync", "symlink", "rename", "fsync"]
    assert rows[1]["size"] == 3
    assert (tmp_path / "record.bytes").read_bytes() == "äb".encode()
    assert rows[3]["to"] == str(tmp_path / "x")
    assert rows[5]["target"] == "x"
    assert rows[4] == {"op": "fsync", "path": str(tmp_path)}


def test_without_the_variables_nothing_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr("llmft.runs.rehearsal.do", None)
    durable.write_text(tmp_path / "x", "")
    assert os.listdir(tmp_path) == ["x"]

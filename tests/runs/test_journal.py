"""Rows survive the death of the process; a torn last line does not survive."""

import os
import subprocess
import sys

import pytest

from llmft.errors import LlmftError
from llmft.runs.journal import Journal


def test_rows_are_in_the_file_at_once(tmp_path):
    with Journal(tmp_path / "new" / "m.jsonl") as journal:
        journal.append({"step": 1, "text": "ä\n"})
        assert (tmp_path / "new" / "m.jsonl").read_text() == '{"step": 1, "text": "ä\\n"}\n'


def test_rows_survive_kill(tmp_path):
    code = "import os, sys; from pathlib import Path; from llmft.runs.journal import Journal; j = Journal(Path(sys.argv[1]))\n"
    code += "for i in range(3): j.append({'i': i})\nos.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "m")], check=False).returncode == -9
    assert Journal.read(tmp_path / "m") == [{"i": 0}, {"i": 1}, {"i": 2}]


@pytest.mark.parametrize("torn", ["", "{", '{"a": 1}', "\0\0\0"])
def test_a_torn_line_is_cut_off(tmp_path, torn):
    path = tmp_path / "m"
    path.write_text('{"a": 0}\n' + torn)
    assert Journal.read(path) == [{"a": 0}]
    with Journal(path) as journal:
        journal.append({"a": 2})
    assert path.read_text() == '{"a": 0}\n{"a": 2}\n'


def test_a_file_of_one_torn_line(tmp_path):
    (tmp_path / "m").write_text('{"a"')
    Journal(tmp_path / "m").close()
    assert (tmp_path / "m").read_bytes() == b""


def test_damage_in_the_middle_is_not_passed_over(tmp_path):
    (tmp_path / "m").write_text('{"a": 0}\n{"a\n{"a": 2}\n')
    with pytest.raises(LlmftError, match=r"m:2: not a line of JSON"):
        Journal.read(tmp_path / "m")


def test_keep(tmp_path):
    path = tmp_path / "m"
    path.write_text('{"step":1}\n{"step":2}\n{"step":3}\n{"st')
    Journal.keep(path, lambda row: row["step"] != 2)
    assert path.read_text() == '{"step":1}\n{"step":3}\n'


def test_what_json_lacks_becomes_null(tmp_path):
    with Journal(tmp_path / "m") as journal:
        journal.append({"loss": float("nan"), "parts": [float("inf"), 1.5], "more": {"x": (float("-inf"),)}})
    assert Journal.read(tmp_path / "m") == [{"loss": None, "parts": [None, 1.5], "more": {"x": [None]}}]


def test_full_disk_leaves_no_half_row(tmp_path, monkeypatch):
    path = tmp_path / "m"
    with Journal(path) as journal:
        journal.append({"a": 1})
        monkeypatch.setenv("LLMFT_FAILPOINT", f"write:1:short:{path}")
        with pytest.raises(LlmftError, match="No space left"):
            journal.append({"a": 2})
        monkeypatch.undo()
        journal.append({"a": 3})
    assert Journal.read(path) == [{"a": 1}, {"a": 3}]


def test_a_row_taken_in_pieces_is_whole(tmp_path, monkeypatch):
    write = os.write
    with Journal(tmp_path / "m") as journal:
        monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
        journal.append({"a": 1})
    assert Journal.read(tmp_path / "m") == [{"a": 1}]


@pytest.mark.parametrize("spoilt", [b"\0" * 20 + b"\n", b'": 2}\n', b'\0\0"step":9}\n{"step":4}\n'])
def test_rows_spoilt_by_a_power_cut_behind_the_checkpoint_are_dropped(tmp_path, spoilt):
    path = tmp_path / "m"
    path.write_bytes(b'{"step":1}\n{"step":2}\n' + spoilt)
    Journal.keep(path, lambda row: row["step"] <= 2)
    assert path.read_text() == '{"step":1}\n{"step":2}\n'


def test_rows_spoilt_before_one_that_is_kept_are_not_passed_over(tmp_path):
    path = tmp_path / "m"
    path.write_bytes(b'{"step":1}\n\0\0\n{"step":2}\n')
    with pytest.raises(LlmftError, match=r"m:2: not a line of JSON"):
        Journal.keep(path, lambda row: row["step"] <= 2)


def test_sync_flushes(tmp_path, monkeypatch):
    flushed = []
    with Journal(tmp_path / "m") as journal:
        monkeypatch.setattr(os, "fsync", flushed.append)
        journal.sync()
    assert len(flushed) == 2  # closing is the other

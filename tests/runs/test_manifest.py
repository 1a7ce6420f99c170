"""A folder is whole, or every way in which it is not is named."""

import errno
import hashlib
import json
import os

import pytest

from llmft.runs import durable, manifest


def test_manifest_holds_sizes_and_hashes(tmp_path):
    with durable.directory(tmp_path / "new") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "x").write_bytes(b"abc")
    # sha256("abc"): FIPS 180-2, appendix B.1
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    values = json.loads((tmp_path / "new" / "manifest.json").read_text())
    own = values.pop("sha256")
    assert values == {"files": {"sub/x": {"bytes": 3, "sha256": digest}}, "facts": {}}
    assert own == hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
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


def test_a_manifest_that_was_changed_in_any_byte_is_noticed(tmp_path):
    with durable.draft(tmp_path / "d", {"step": 7, "text": "ä"}) as new:
        new.write("x", [b"abc"])
    path = tmp_path / "d" / "manifest.json"
    data = path.read_bytes()
    for place in range(len(data)):
        for bit in range(8):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
            assert durable.verify(tmp_path / "d"), (place, bit)
    for other in (data + b"\n", data[:-1], b" " + data, data.replace(b"7", b"7.0"), data.replace(b"\xc3\xa4", b"\\u00e4")):
        path.write_bytes(other)
        (problem,) = durable.verify(tmp_path / "d")
        assert problem.startswith(f"{path}: not readable (")
    path.write_bytes(data)
    assert durable.verify(tmp_path / "d") == []
    assert manifest.read(tmp_path / "d")[1] == {"step": 7, "text": "ä"}


def test_what_was_hashed_on_the_way_is_what_the_manifest_says(tmp_path, monkeypatch):
    # a disk that keeps something else than it was given
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data).replace(b"abc", b"abd")))
    with durable.draft(tmp_path / "d") as new:
        new.write("x", [b"abc"])
    monkeypatch.undo()
    assert durable.verify(tmp_path / "d", from_disk=True) == [f"{tmp_path}/d/x: SHA-256 differs from manifest.json"]


def test_what_is_no_file_is_noticed_and_not_read(tmp_path):
    with durable.draft(tmp_path / "d") as new:
        new.write("x", [b"abc"])
    (tmp_path / "d" / "x").unlink()
    os.mkfifo(tmp_path / "d" / "x")  # reading it would wait for ever
    (tmp_path / "d" / "dangling").symlink_to("nowhere")
    assert durable.verify(tmp_path / "d") == [
        f"{tmp_path}/d/dangling: not in manifest.json",
        f"{tmp_path}/d/x: not a file",
    ]


@pytest.mark.parametrize("from_disk", [False, True])
@pytest.mark.parametrize(
    "put", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "folder", "device"]
)
def test_a_manifest_that_is_no_file_is_not_read(tmp_path, put, from_disk):
    put(tmp_path / "manifest.json")
    (problem,) = durable.verify(tmp_path, from_disk)
    assert problem.startswith(f"{tmp_path}/manifest.json: not readable (")


def test_a_manifest_so_deep_that_python_gives_up(tmp_path):
    (tmp_path / "manifest.json").write_text("[" * 200_000)
    (problem,) = durable.verify(tmp_path)
    assert "not readable (not a manifest (RecursionError" in problem


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "x").write_bytes(b"abc" * 1000)
    assert durable.sha256(tmp_path / "x") == hashlib.sha256(b"abc" * 1000).hexdigest()


def test_a_file_that_cannot_be_read_is_damaged(tmp_path, monkeypatch):
    with durable.draft(tmp_path / "d") as new:
        new.write("x", [b"abc"])

    def fail(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(manifest, "sha256", fail)
    assert durable.verify(tmp_path / "d") == [f"{tmp_path}/d/x: cannot be read (Input/output error)"]

"""Hashes against published values, no secrets, no heavy imports."""

import getpass
import json
import os
import subprocess
import sys

import pytest

from llmft.errors import LlmftError
from llmft.runs import durable, provenance
from llmft.runs.cache import cache_dir


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LLMFT_CACHE", str(folder))
    return folder


def settled(path, content: bytes):
    path.write_bytes(content)
    os.utime(path, ns=(10**18, 10**18))
    return path


def test_hash_of_a_million_letters(tmp_path):
    # FIPS 180-2, appendix B.3
    digest = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
    (tmp_path / "a").write_bytes(b"a" * 1_000_000)
    assert provenance.hash_file(tmp_path / "a") == digest


def test_a_large_file_is_read_once_until_it_changes(tmp_path, cache, monkeypatch):
    path, read = settled(tmp_path / "large", b"a" * (1 << 20)), []
    real = durable.sha256
    monkeypatch.setattr(durable, "sha256", lambda path: read.append(path) or real(path))
    first = provenance.hash_file(path)
    assert provenance.hash_file(path) == first
    assert len(read) == 1
    path.write_bytes(b"b" * (1 << 20))
    os.utime(path, ns=(10**18 + 1, 10**18 + 1))
    assert provenance.hash_file(path) == real(path) != first
    assert len(json.loads((cache / "hashes.json").read_text())) == 2


def test_a_file_changed_just_now_is_not_remembered(tmp_path, cache):
    (tmp_path / "large").write_bytes(b"a" * (1 << 20))
    provenance.hash_file(tmp_path / "large")
    assert not (cache / "hashes.json").exists()


@pytest.mark.parametrize("content", ["", "[]", "\0"])
def test_a_damaged_memory_is_forgotten(tmp_path, cache, content):
    (cache / "hashes.json").write_text(content)
    path = settled(tmp_path / "large", b"a" * (1 << 20))
    assert provenance.hash_file(path) == durable.sha256(path)
    assert len(json.loads((cache / "hashes.json").read_text())) == 1


def test_no_cache_folder_is_no_reason_to_stop(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LLMFT_CACHE", str(tmp_path / "file"))
    path = settled(tmp_path / "large", b"a" * (1 << 20))
    assert provenance.hash_file(path) == durable.sha256(path)
    with pytest.raises(LlmftError, match="Set LLMFT_CACHE to a folder that can be written"):
        cache_dir()


def test_hash_folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.json", "a.safetensors", "sub/c.json", "d.txt"):
        (tmp_path / name).write_bytes(b"abc")
    hashes = provenance.hash_folder(tmp_path, ["*.json", "*.safetensors", "b.*"])
    assert list(hashes) == ["a.safetensors", "b.json", "sub/c.json"]
    # FIPS 180-2, appendix B.1
    assert set(hashes.values()) == {"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}


def test_fingerprint():
    # printf '{"a":[1,2.5,null],"b":{"c":"\\u00e4"}}' | sha256sum
    assert provenance.fingerprint(b={"c": "ä"}, a=[1, 2.5, None]) == "7f33344b5cf0d93f"
    assert provenance.fingerprint(a=[1, 2.5, None], b={"c": "ä"}) == "7f33344b5cf0d93f"
    assert provenance.fingerprint(a=[1, 2.5, None], b={"c": "a"}) != "7f33344b5cf0d93f"


def test_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_VARIABLE", "its-value-42")
    found = provenance.environment()
    assert found["python"] == sys.version.split()[0]
    import torch  # loaded late on purpose: the names of GPUs come only with it

    assert found["packages"]["torch"] == torch.__version__
    assert found["packages"]["hydra-core"].startswith("1.3")
    assert found["cores"] == os.cpu_count()
    text = json.dumps(found)
    assert "its-value-42" not in text
    assert getpass.getuser() not in text.replace('"', " ").replace("/", " ").split()


def test_git(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert provenance.environment()["git"] is None
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "m"]):
        (tmp_path / "x").write_text("1")
        subprocess.run(["git", *command], check=True)
    commit = subprocess.run(["git", "log", "-1", "--format=%H"], capture_output=True, text=True, check=True).stdout.strip()
    assert provenance.environment()["git"] == {"commit": commit, "dirty": False}
    (tmp_path / "x").write_text("2")
    assert provenance.environment()["git"] == {"commit": commit, "dirty": True}


def test_runs_loads_nothing_heavy():
    code = "import sys; from llmft.runs import directory, journal, provenance, signals; provenance.environment()\n"
    code += "sys.exit(' '.join({'torch', 'transformers', 'datasets', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr == "\n"


def test_cache_dir(tmp_path, monkeypatch):
    monkeypatch.delenv("LLMFT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "llmft"
    assert (tmp_path / "xdg" / "llmft").is_dir()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "llmft"


def test_killed_for_memory_is_read_from_the_run(tmp_path, monkeypatch):
    assert provenance.killed_for_memory(tmp_path) is None  # no environment.json
    (tmp_path / "environment.json").write_text('{"python": "3"}')  # of an older version
    assert provenance.killed_for_memory(tmp_path) is None
    (tmp_path / "environment.json").write_text(json.dumps({"oom_kills": {"cgroup": "/job"}}))
    monkeypatch.setattr(provenance.limits, "killed_since", lambda before: f"killed in {before['cgroup']}")
    assert provenance.killed_for_memory(tmp_path) == "killed in /job"

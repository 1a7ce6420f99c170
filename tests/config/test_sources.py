"""Where YAML is looked for."""

import pytest

from llmft.config import sources
from llmft.errors import ConfigError


def test_folders_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sources.user_folders(None) == []
    (tmp_path / "llmft_conf").mkdir()
    (tmp_path / "mine").mkdir()
    assert sources.user_folders("mine") == [tmp_path / "mine", tmp_path / "llmft_conf"]


def test_an_installed_package_brings_yaml(tmp_path, monkeypatch, capsys):
    """A package with the entry point llmft.conf, as pip leaves it on the disk."""
    (tmp_path / "site/their_conf/task").mkdir(parents=True)
    (tmp_path / "site/their_conf/task/theirs.yaml").write_text("name: theirs\n", encoding="utf-8")
    (tmp_path / "site/theirs-1.dist-info").mkdir()
    (tmp_path / "site/theirs-1.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: theirs\nVersion: 1\n", encoding="utf-8"
    )
    points = tmp_path / "site/theirs-1.dist-info/entry_points.txt"
    points.write_text("[llmft.conf]\ntheirs = their_conf\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.chdir(tmp_path)
    assert sources.user_folders(None) == [tmp_path / "site/their_conf"]
    from llmft.cli.main import main

    assert main(["train", "task=theirs", "--cfg", "job"]) == 0
    assert "name: theirs" in capsys.readouterr().out
    points.write_text("[llmft.conf]\ntheirs = not_there\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="theirs = not_there: no such package"):
        sources.user_folders(None)


def test_two_files_of_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder / "task").mkdir(parents=True)
        (tmp_path / folder / "task/mine.yaml").touch()
    sources.check_shadowing([tmp_path / "a"])
    with pytest.raises(ConfigError) as raised:
        sources.check_shadowing([tmp_path / "a", tmp_path / "b"])
    assert str(raised.value).startswith(f"{tmp_path}/b/task/mine.yaml: {tmp_path}/a/task/mine.yaml has the same name")

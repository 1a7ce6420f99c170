"""Files that would do harm before anything in them is a setting, and what a merge key brings in."""

import pytest
import yaml

from llmft.config import yaml_files
from llmft.config.schema import TrainRun
from llmft.errors import ConfigError


def check(tmp_path, text, package=""):
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    return [
        problem.removeprefix(f"{tmp_path / 'x.yaml'}:")
        for problem in yaml_files.check(tmp_path / "x.yaml", package, TrainRun, "train")
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # 10 to the power of 7 values, and each level above them: the sum of 10**n for n = 0 ... 7
        (
            "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
            + "".join(f"{b}: &{b} [{','.join(['*' + a] * 10)}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)),
            "values once its aliases are replaced, expected at most 100,000.",
        ),
        ("a: &a [*a]\n", "nested in itself, or deeper than 50 levels"),
        ("a: " + "[" * 60 + "]" * 60, "deeper than 50 levels"),
        ("[" * 5000, "deeper than 50 levels"),
        ("a: " + "x" * (1 << 20), "bytes, expected settings, at most 1,048,576"),
        ("- a\n", "found no settings"),
        ("a: \x00", "not valid YAML: special characters are not allowed (U+0000)"),
    ],
    ids=["bomb", "circle", "deep", "deeper", "large", "list", "NUL"],
)
def test_files_that_are_not_read(tmp_path, text, said):
    with pytest.raises(ConfigError) as raised:
        check(tmp_path, text)
    assert said in str(raised.value)
    assert str(raised.value).startswith(str(tmp_path / "x.yaml"))


def test_aliases_are_counted_as_often_as_they_are_used(tmp_path, monkeypatch):
    path = tmp_path / "x.yaml"
    path.write_text("a: &a [1, 2]\nb: [*a, *a]\n", encoding="utf-8")
    monkeypatch.setattr(yaml_files, "MOST_VALUES", 12)
    # the top, two names, a list and two values, a list and two lists of three: 1 + 2 + 3 + 7 = 13
    with pytest.raises(ConfigError, match=": 13 values once its aliases are replaced, expected at most 12"):
        yaml_files.read(path)
    monkeypatch.setattr(yaml_files, "MOST_VALUES", 13)
    assert isinstance(yaml_files.read(path), yaml.MappingNode)


def test_what_a_merge_key_brings_is_checked(tmp_path):
    text = "seed: 1\n<<: {hydra: {job_logging: {handlers: {}}}, optimzer: 3}\n"
    found = check(tmp_path, text)
    assert [problem.partition(" ")[0] for problem in found] == ["1:", "1:"]
    assert any("hydra.job_logging.handlers: cannot be set" in problem for problem in found)
    assert any("no setting optimzer" in problem for problem in found)


def test_names_that_are_no_text(tmp_path):
    assert check(tmp_path, "1.5: 2\n") == ["1: llmft train has no setting 1.5. All of them: llmft train --help"]


def test_a_section_is_no_single_value(tmp_path):
    [problem] = check(tmp_path, "seed: 1\nmodel: ${oc.create:{trust_remote_code:true}}\n")
    assert problem.startswith("2: model: found '${oc.create:{trust_remote_code:true}}', expected the settings name, ")


@pytest.mark.parametrize(
    ("marker", "name", "recorded"),
    [
        ("status.json", "x.yaml", True),
        ("status.json", "experiment/x.yaml", True),
        ("config.json", "x.yaml", True),
        ("experiment/status.json", "experiment/x.yaml", True),
        ("../status.json", "x.yaml", True),
        ("../config.json", "x.yaml", False),
        ("notes.json", "x.yaml", False),
    ],
)
def test_where_a_file_comes_from(tmp_path, marker, name, recorded):
    folder = tmp_path / "conf"
    for each in (marker, name):
        (folder / each).parent.mkdir(parents=True, exist_ok=True)
        (folder / each).touch()
    assert yaml_files.is_recorded(folder / name, [folder]) is recorded


def test_a_recorded_file_brings_values_alone(tmp_path):
    path = tmp_path / "rerun.yaml"
    path.write_text(
        "defaults: [schema/train, _self_]\nseed: 3\ntask: {prompt: 'costs \\${5}'}\nplugins: []\n", encoding="utf-8"
    )
    assert yaml_files.check_recorded(path) == []
    path.write_text("defaults: [x]\nplugins: [os]\nhydra: {verbose: true}\noutput_dir: /\nseed: '${a}'\n", encoding="utf-8")
    found = [problem.split(": ", 1)[1].split(";")[0] for problem in yaml_files.check_recorded(path)]
    assert found == [
        "found a defaults list of its own", "found plugins", "found hydra", "found output_dir", "found a value to be resolved, ${...}",
    ]  # fmt: skip

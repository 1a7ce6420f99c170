"""What people get wrong in YAML files: one sentence each, with file and line, exit 2, no traceback."""

import pytest


def test_all_of_a_file_at_once(llmft, tmp_path, write):
    path = write(tmp_path / "mine/experiment/x.yaml", "# @package _global_\noptimizer:\n  lrr: 1\n  lr: fast\nseeed: 3\n")
    assert llmft("train", "--config-dir", "mine", "experiment=x") == 2
    assert [line.split(": ")[1] for line in llmft.err.splitlines()] == [f"{path}:{line}" for line in (3, 4, 5)]


BAD_YAML = [
    ("a: [1\nb: 2\n", "experiment/x.yaml", ":2:"),
    ("a: 'x\n", "experiment/x.yaml", ":2:"),
    ("\tseed: 1\n", "experiment/x.yaml", ":1:"),
    ("seed: 1\nseed: 2\n", "experiment/x.yaml", ":2:"),
    ("task: {source: ${seed}}\n", "experiment/x.yaml", ":1:"),
]


@pytest.mark.parametrize(("text", "name", "place"), BAD_YAML)
def test_broken_yaml(llmft, tmp_path, write, text, name, place):
    path = write(tmp_path / "llmft_conf" / name, text)
    assert llmft("train", "experiment=x") == 2
    assert llmft.err.startswith(f"error: {path}{place}")
    assert llmft.err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b\n", ":1: found no settings"),
        ("just text\n", ":1: found no settings"),
        (
            "hydra:\n  callbacks:\n    x:\n      _target_: os.system\n",
            ":5: hydra.callbacks.x._target_: cannot be set from a YAML file",
        ),
        ("hydra:\n  job_logging:\n    handlers: {}\n", "hydra.job_logging"),
        ("hydra:\n  sweep:\n    dir: x\n", "output_root"),
        ("task:\n  metrics:\n    mine:\n      _target_: os.system\n", "found _target_"),
        ("task:\n  name: yes\n", ":3: task.name: found true, expected text or null: put it in quotes"),
        ("model:\n  revision: 12e4567\n", "put it in quotes"),
        ("training:\n  fast: off\n", "put it in quotes"),
        ("task:\n  metrics: [rouge]\n", "expected name: value pairs"),
        ("task:\n  data:\n    train: {a: 1}\n", ":4: task.data.train: found {'a': 1}, expected a name or a list of names"),
        ("optimizer: adamw\n", "expected the settings name, lr"),
        (
            "defaults:\n  - override /task: sumarization\n",
            "task=sumarization: there is no such task. Did you mean summarization?",
        ),
    ],
)
def test_wrong_yaml(llmft, tmp_path, write, text, said):
    path = write(tmp_path / "llmft_conf/experiment/x.yaml", "# @package _global_\n" + text)
    assert llmft("train", "experiment=x") == 2
    assert said in llmft.err
    assert llmft.err.startswith("error: ")
    if "defaults" not in text:
        assert str(path) in llmft.err
    assert llmft.err.count("\n") == 1


def test_user_files_of_a_group(llmft, tmp_path, write):
    write(tmp_path / "llmft_conf/task/mine.yaml", 'name: mine\nsource: "{q}"\ntarget: "{a}"\n')
    assert llmft("train", "task=mine") == 0
    assert (llmft.runs[0].task.name, llmft.runs[0].task.metrics) == ("mine", {})
    path = write(tmp_path / "llmft_conf/task/mine.yaml", "name: mine\nsuorce: x\n")
    assert llmft("train", "task=mine") == 2
    assert llmft.err.startswith(f"error: {path}:2: llmft train has no setting task.suorce. Did you mean task.source")


def test_a_file_that_would_be_ignored(llmft, tmp_path, write):
    path = write(tmp_path / "llmft_conf/model/gpt2.yaml", "name: mine\n")
    assert llmft("train") == 2
    assert llmft.err.startswith(f"error: {path}: ")
    assert "conf/model/gpt2.yaml has the same name and would be read instead. Rename your file." in llmft.err


def test_a_launcher_of_ones_own_names_no_code(llmft, tmp_path, write):
    write(tmp_path / "llmft_conf/hydra/launcher/mine.yaml", "_target_: os.system\n")
    assert llmft("train", "hydra/launcher=mine") == 2
    assert "hydra.launcher._target_: cannot be set" in llmft.err


@pytest.mark.parametrize("text", ["seed: 1\n", "", "defaults:\n  - override /task: summarization\n"])
def test_an_experiment_without_its_first_line(llmft, tmp_path, write, text):
    path = write(tmp_path / "llmft_conf/experiment/x.yaml", text)
    assert llmft("train", "experiment=x") == 2
    where = "experiment/x.yaml" if "override" in text else f"{path}:1"
    assert llmft.err == (f"error: {where}: an experiment is settings from the top. Make its first line: # @package _global_\n")


def test_yaml_in_another_encoding(llmft, tmp_path, write):
    path = write(tmp_path / "llmft_conf/experiment/x.yaml", "")
    path.write_bytes("# @package _global_\ntask:\n  name: Übersetzung\n".encode("latin-1"))
    assert llmft("train", "experiment=x") == 2
    assert llmft.err == f"error: {path}: not UTF-8. Save it as UTF-8.\n"

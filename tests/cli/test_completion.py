"""What Tab offers."""

import os
import shutil
import subprocess
import sys

import pytest

from llmft.cli.completion import complete


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("llmft ", ["train", "eval", "predict", "env", "completion", "help"]),
        ("llmft tr", ["train"]),
        ("llmft completion ", ["bash", "zsh"]),
        ("llmft train --c", ["--cfg", "--config-dir", "--config-name"]),
        ("llmft train --cfg ", ["job", "hydra", "all"]),
        ("llmft train opt", ["optimizer.", "optimizer="]),
        ("llmft train optimizer.l", ["optimizer.lr="]),
        ("llmft train task.data.max_t", ["task.data.max_test=", "task.data.max_train="]),
        ("llmft train model=gp", ["model=gpt1", "model=gpt2", "model=gpt2_medium"]),
        ("llmft train -m model=gpt2,t5", ["model=gpt2,t5_base", "model=gpt2,t5_small"]),
        ("llmft train hardware.device=c", ["hardware.device=cpu", "hardware.device=cuda"]),
        ("llmft train export.merge=", ["export.merge=true", "export.merge=false"]),
        ("llmft eval opt", []),
        ("llmft env ", []),
    ],
)
def test_complete(line, offered):
    assert complete(line) == offered


def test_runs_are_offered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / "outputs" / name).mkdir(parents=True)
        (tmp_path / "outputs" / name / "status.json").touch()
    assert complete("llmft eval run=") == ["run=latest", "run=outputs/b", "run=outputs/a"]


def test_own_files_are_offered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llmft_conf/task").mkdir(parents=True)
    (tmp_path / "llmft_conf/task/mine.yaml").touch()
    assert complete("llmft train task=m") == ["task=mine"]


def test_bash_gets_the_part_behind_the_equals_sign(tmp_path):
    """The script as bash runs it: bash itself cuts words at =, so only the names must come back for model=gp."""
    program = tmp_path / "llmft"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m llmft "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    script = 'eval "$(llmft completion bash)"; COMP_LINE="llmft train model=gp"; COMP_POINT=${#COMP_LINE}; _llmft; echo "${COMPREPLY[@]}"'
    bash = shutil.which("bash")
    assert bash
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([bash, "-c", script], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.stdout.strip() == "gpt1 gpt2 gpt2_medium"

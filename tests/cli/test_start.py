"""Help, completion and mistakes answer at once and load nothing heavy: each in a process of its own."""

import json
import os
import subprocess
import sys
import time

import pytest

HEAVY = ("torch", "transformers", "datasets", "peft", "pyarrow", "optuna")
CONFIG = ("hydra", "omegaconf", "antlr4")
PROGRAM = """
import json, sys
from llmft.cli.main import main
code = main(sys.argv[1:])
print(json.dumps([code, sorted(sys.modules)]))
"""


def run(*words: str, cwd) -> tuple[int, set[str], str, str, float]:
    """Exit code, imported modules, what was said on stdout and stderr, and the seconds it took."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, cwd=cwd, timeout=60)
    seconds = time.perf_counter() - start
    *said, last = done.stdout.splitlines()
    code, modules = json.loads(last)
    return code, set(modules), "\n".join(said), done.stderr, seconds


@pytest.mark.parametrize("words", [("--help",), (), ("help", "model"), ("train", "--help"), ("eval", "-h"), ("--version",),
                                   ("completion", "bash"), ("completion", "answers", "llmft train op")])  # fmt: skip
def test_help_is_light(words, tmp_path):
    seconds = []
    for _ in range(3):
        code, modules, out, err, taken = run(*words, cwd=tmp_path)
        seconds.append(taken)
    assert (code, err) == (0, "")
    assert out
    assert not modules & {*HEAVY, *CONFIG}
    assert min(seconds) < 0.3


@pytest.mark.parametrize("words", [("trian",), ("task=x",), ("env", "x"), ("help", "x"), ("completion", "fish")])
def test_a_wrong_command_is_light(words, tmp_path):
    code, modules, out, err, _ = run(*words, cwd=tmp_path)
    assert (code, out, err[:7]) == (2, "", "error: ")
    assert not modules & {*HEAVY, *CONFIG}


@pytest.mark.parametrize(
    "words",
    [
        ("train", "optimizer.lrr=1"),
        ("train", "optimizer.lr=abc"),
        ("train", "task=sumarization"),
        ("train", "training.batch_size=0"),
        ("train", "task.name=${nothing}"),
        ("train", "--flag"),
        ("train", "~model"),
        ("eval",),
        ("eval", "run=nothing"),
        ("predict", "run=latest"),
        ("train", "experiment=broken"),
        ("train", "-m", "seed=1,x"),
    ],
)
def test_a_wrong_setting_loads_no_torch(words, tmp_path):
    broken = tmp_path / "llmft_conf/experiment/broken.yaml"
    broken.parent.mkdir(parents=True)
    broken.write_text("a: [", encoding="utf-8")
    code, modules, out, err, seconds = run(*words, cwd=tmp_path)
    assert (code, out, err[:7]) == (2, "", "error: ")
    assert "Traceback" not in err
    assert not modules & set(HEAVY)
    assert seconds < 3  # about half a second on an idle machine
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llmft_conf"]


UNUSED = (
    *("transformers.trainer", "transformers.training_args", "datasets", "pyarrow", "pandas", "sklearn", "scipy", "matplotlib"),
    *("optuna", "trl", "sacrebleu", "gguf", "sentencepiece", "tensorboard", "wandb", "llmft.sweep", "bitsandbytes"),
)


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_a_training_loads_what_it_needs(adapter, tiny, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"document": f"the fox {n}", "summary": f"fox {n}"}) + "\n" for n in range(40)))
    words = (
        *("train", f"task.data.train=[{rows}]", f"model.name={tiny / 'llama'}", f"adapter={adapter}", "training.max_steps=1"),
        *(
            "task.data.holdout=0.2",
            "task.data.max_test=1",
            "generation.max_new_tokens=2",
            "hardware.device=cpu",
            f"output_dir={tmp_path / 'run'}",
        ),
    )
    code, modules, _, err, _ = run(*words, cwd=tmp_path)
    assert code == 0, err
    assert {"torch", "transformers.models.llama.modeling_llama"} <= modules
    assert modules & set(UNUSED) == set()
    assert ("peft" in modules) == (adapter == "lora")


def test_a_closed_pipe_is_quiet(tmp_path):
    line = f"{sys.executable} -m llmft train --help | head -c 10 > /dev/null; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    assert done.stderr == ""
    assert done.stdout.strip() in ("0", "1")  # 0 where head was slower than the text


def test_help_names_every_setting(capsys):
    from llmft.cli.main import main
    from llmft.config import settings
    from llmft.config.compose import ROOTS

    for command, root in ROOTS.items():
        assert main([command, "--help"]) == 0
        lines = capsys.readouterr().out.splitlines()
        shown = {line.strip().split("=")[0] for line in lines if line.startswith("  ") and "=" in line}
        known = set(settings.keys(root))
        assert len(known) > 40
        assert known <= shown


def test_help_shows_the_defaults_of_the_schema():
    from omegaconf import OmegaConf

    from llmft.cli import schema_text
    from llmft.config.schema import TrainRun

    schema = OmegaConf.structured(TrainRun)
    shown = {setting.key: setting for section in schema_text.sections("train") for setting in section.settings}
    assert shown["optimizer.lr"].default == "0.0002"
    assert shown["model.name"].default == "(needed)"
    assert shown["hardware.device"].choices == ("auto", "cpu", "cuda")
    assert all(setting.meaning for setting in shown.values())
    for key, setting in shown.items():
        if setting.default != "(needed)":
            word = "null" if (value := OmegaConf.select(schema, key)) is None else str(getattr(value, "name", value))
            assert setting.default.lower() == word.lower()


@pytest.mark.parametrize("own", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}])
def test_how_threads_wait_is_the_users_to_say(monkeypatch, own):
    from llmft.cli.main import main

    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    assert main(["train", "nonsense"]) == 2
    found = {name: os.environ[name] for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT") if name in os.environ}
    assert found == (own or {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"})


@pytest.mark.parametrize(("own", "expected"), [(None, "384"), ("64", "64")])
def test_how_many_products_are_kept_ready_is_the_users_to_say(monkeypatch, own, expected):
    from llmft.cli.main import main

    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    monkeypatch.setenv(name, own or "")
    if own is None:
        monkeypatch.delenv(name)
    assert main(["train", "nonsense"]) == 2
    assert os.environ[name] == expected

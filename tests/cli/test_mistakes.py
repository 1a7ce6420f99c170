"""What people get wrong on the command line: one sentence each, all of them at once, exit 2, no traceback."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_all_at_once(llmft):
    words = "optimizer.lrr=1", "learning_rate=3", "task=sumarization", "hardware.device=gpu", "optimizer.lr=abc", "model"
    assert llmft("train", *words) == 2
    assert llmft.err.splitlines() == [
        "error: llmft train has no setting optimizer.lrr. Did you mean optimizer.lr?",
        "error: llmft train has no setting learning_rate. Here it is called optimizer.lr.",
        "error: task=sumarization: there is no such task. Did you mean summarization? "
        "Choices: " + ", ".join(sorted(path.stem for path in (ROOT / "conf/task").glob("*.yaml"))),
        "error: hardware.device: found 'gpu', expected one of auto, cpu, cuda",
        "error: optimizer.lr: found 'abc', expected a number",
        "error: model: not a setting. Settings are written key=value; flags begin with a dash.",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("trian",), "error: trian: no such command. Did you mean llmft train?"),
        (("evaluate",), "Did you mean llmft eval?"),
        (("task=summarization",), "error: task=summarization: a command comes first: llmft train task=summarization"),
        (("--multirun", "train"), "a command comes first"),
        (("train", "--lr", "3"), "error: --lr: llmft train has no such flag. Settings are written without dashes: lr=..."),
        (("train", "task=sumarization"), "Did you mean summarization?"),
        (("train", "model=gpt3"), "Did you mean gpt2 or gpt1?"),
        (("train", "-m", "model=gpt2,gpt3"), "error: model=gpt3: there is no such model."),
        (("train", "-m", "optimizer.lr=1e-4,abc"), "error: optimizer.lr: found 'abc', expected a number"),
        (("train", "optimizer.lr=1e-4,2e-4"), "error: optimizer.lr: several values (1e-4,2e-4) make a sweep, which needs -m."),
        (("train", "model=gpt2,t5_small"), "make a sweep, which needs -m"),
        (("train", "~optimizer.lr"), "error: ~optimizer.lr: only groups and entries"),
        (("train", "~nothing"), "error: ~nothing: only groups and entries"),
        (("train", "hydra.sweep.dir=x"), "output_root="),
        (("train", "hydra.run.dir=x"), "output_dir"),
        (("train", "hydra/job_logging=stdout"), "error: hydra/job_logging: cannot be set from the command line"),
        (("train", "+hydra.callbacks.x._target_=os.system"), "cannot be set"),
        (("train", "hydra.launcher._target_=os.system"), "cannot be set"),
        (("train", "+hydra.launcher.x={_target_: os.system}"), "found _target_"),
        (("train", "hydra.searchpath=[pkg://os]"), "--config-dir"),
        (("train", "task.metrics.rouge._target_=os.system"), "found _target_"),
        (("train", "optimizer.options={_target_: os.system}"), "found _target_"),
        (("eval", "adapter=lora"), "error: adapter: llmft eval has no adapter, that belongs to llmft train."),
        (("eval", "optimizer.lr=1"), "error: llmft eval has no setting optimizer.lr."),
        (("train", "--config-dir", "nowhere"), "error: --config-dir nowhere: no such folder."),
        (("train", "--config-name", "nothing"), "error: Cannot find primary config 'nothing'."),
        (("train", "hydra/launcher=slurm"), "error: hydra/launcher=slurm: there is no such hydra/launcher."),
        (("help", "modle"), "error: help modle: no such command or group."),
        (("completion", "fish"), "expected llmft completion bash, or zsh"),
        (("env", "x=1"), "expected none"),
    ],
)
def test_sentence(llmft, words, said):
    assert llmft(*words) == 2
    assert said in llmft.err
    assert llmft.err.startswith("error: ")
    assert llmft.err.count("\n") == 1
    assert llmft.runs == []


def test_missing_value(llmft):
    assert llmft("train", "~model") == 2
    assert llmft.err == "error: model.name: needed, but not set. Add model.name=...\n"


@pytest.mark.parametrize("command", ["train", "eval"])
@pytest.mark.parametrize("group", ["task", "experiment"])
def test_no_group_is_null(llmft, command, group):
    assert llmft(command, f"{group}=null") == 2
    assert llmft.err.startswith(f"error: {group}=null: found null, expected one of ")
    assert llmft.err.endswith(f"; to choose none, leave {group}= out.\n")


@pytest.mark.parametrize("value", ["1,", "[1", "choice(1"])
def test_half_a_value(llmft, value):
    assert llmft("train", "-m", f"seed={value}") == 2
    assert llmft.err.startswith(f"error: seed: cannot read the value {value!r}. Close every bracket")
    assert llmft.err.count("\n") == 1


@pytest.mark.parametrize("key", ["\n", "\u2028a", " "])
def test_a_key_that_cannot_be_seen(llmft, key):
    assert llmft("train", f"{key}=1") == 2
    assert llmft.err.startswith("error: '")
    assert llmft.err.count("\n") == 1


@pytest.mark.parametrize("value", ["{a: {b: c}}", "{a: [b]}"])
def test_what_is_nested_is_no_file(llmft, value):
    assert llmft("train", "model.name=m", f"task.data.train={value}") == 2
    assert ", expected a name or a list of names such as [a, b], or parallel text files as {column: file, ...}" in llmft.err


def test_rules_come_together(llmft):
    assert llmft("train", "training.batch_size=0", "optimizer.lr=0", "training.metric=rogueL") == 2
    assert llmft.err.count("error: ") == 3
    assert "Did you mean rougeL?" in llmft.err

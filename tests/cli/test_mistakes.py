"""What people get wrong, on the command line and in YAML: one sentence each, exit 2, no traceback."""

from pathlib import Path

import pytest

UNKNOWN = [
    ("optimizer.lrr", "Did you mean optimizer.lr"),
    ("optimzer.lr", "Did you mean optimizer.lr"),
    ("lr", "It belongs to a section: optimizer.lr."),
    ("training.lr", "Did you mean optimizer.lr"),
    ("num_beams", "generation.num_beams"),
    ("seeed", "Did you mean seed"),
    ("weight_decay", "optimizer.weight_decay"),
    ("learning_rate", "optimizer.lr"),
    ("training.learning_rate", "optimizer.lr"),
    ("num_train_epochs", "training.epochs"),
    ("per_device_train_batch_size", "training.batch_size"),
    ("gradient_accumulation_steps", "training.micro_tokens"),
    ("max_length", "task.max_source_tokens"),
    ("max_seq_length", "task.max_source_tokens"),
    ("lora_r", "adapter.r"),
    ("lora_alpha", "adapter.alpha"),
    ("output", "output_dir"),
    ("do_train", "llmft train"),
    ("fp16", "hardware.precision"),
    ("bf16", "hardware.precision"),
    ("warmup_ratio", "schedule.warmup"),
    ("warmup_steps", "schedule.warmup"),
    ("save_steps", "training.save_every"),
    ("eval_steps", "training.eval_every"),
    ("logging_steps", "training.log_every"),
    ("early_stopping_patience", "training.patience"),
    ("load_best_model_at_end", "training.metric"),
    ("train_file", "task.data.train"),
    ("validation_file", "task.data.validation"),
    ("text_column", "task.source"),
    ("summary_column", "task.target"),
    ("model_name_or_path", "model.name"),
    ("generation_max_length", "generation.max_new_tokens"),
    ("task.data.trian", "task.data.train"),
    ("task.metric", "Did you mean task.metrics"),
    ("new.key", "llmft train --help"),
    ("something", "llmft train --help"),
]
WRONG_VALUES = [
    ("optimizer.lr", "abc", "expected a number"),
    ("training.batch_size", "1.5", "expected a whole number"),
    ("training.batch_size", "[1]", "expected a whole number"),
    ("training.baseline", "maybe", "expected true or false"),
    ("hardware.device", "gpu", "expected one of auto, cpu, cuda"),
    ("training.max_steps", "many", "expected a whole number or null"),
    ("optimizer.lr", "null", "expected a number"),
    ("gate.min.rougeL", "high", "expected a number"),
    ("adapter.target_modules", "[]", "expected a name or a list of names"),
    ("optimizer", "{lrr: 1}", "Did you mean optimizer.lr"),
    ("optimizer", "{lr: x}", "expected a number"),
]

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("key", "hint"), UNKNOWN)
@pytest.mark.parametrize("prefix", ["", "+", "++"])
def test_unknown_key(llmft, key, hint, prefix):
    assert llmft("train", f"{prefix}{key}=1") == 2
    assert llmft.err.startswith(f"error: llmft train has no setting {key}. ")
    assert hint in llmft.err
    assert llmft.err.count("\n") == 1


@pytest.mark.parametrize(("key", "value", "expected"), WRONG_VALUES)
def test_wrong_value(llmft, key, value, expected):
    assert llmft("train", f"{key}={value}") == 2
    assert llmft.err.startswith("error: ")
    assert expected in llmft.err
    assert llmft.err.count("\n") == 1


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path.resolve()


def as_yaml(key, value):
    """The YAML of a dotted key, and the line that its last part is on (after a line for the header)."""
    parts = key.split(".")
    lines = [f"{'  ' * depth}{part}:" for depth, part in enumerate(parts)]
    return "# @package _global_\n" + "\n".join(lines) + f" {value}\n", len(lines) + 1


@pytest.mark.parametrize(("key", "hint"), UNKNOWN)
def test_unknown_key_in_yaml(llmft, tmp_path, key, hint):
    text, line = as_yaml(key, 1)
    path = write(tmp_path / "llmft_conf/experiment/mine.yaml", text)
    assert llmft("train", "experiment=mine") == 2
    line = line if key.startswith(("training.", "optimizer.", "task.")) else 2  # else the section itself is unknown
    assert llmft.err.startswith(f"error: {path}:{line}: llmft train has no setting {key.split('.')[0]}")
    if line > 2 or "." not in key:
        assert hint in llmft.err
    assert llmft.err.count("\n") == 1


@pytest.mark.parametrize(("key", "value", "expected"), [row for row in WRONG_VALUES if row[0] != "optimizer"])
def test_wrong_value_in_yaml(llmft, tmp_path, key, value, expected):
    text, line = as_yaml(key, value)
    path = write(tmp_path / "llmft_conf/experiment/mine.yaml", text)
    assert llmft("train", "experiment=mine") == 2
    assert llmft.err.startswith(f"error: {path}:{line}: {key}: found ")
    assert expected in llmft.err


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


def test_all_of_a_file_at_once(llmft, tmp_path):
    path = write(tmp_path / "mine/experiment/x.yaml", "# @package _global_\noptimizer:\n  lrr: 1\n  lr: fast\nseeed: 3\n")
    assert llmft("train", "--config-dir", "mine", "experiment=x") == 2
    assert [line.split(": ")[1] for line in llmft.err.splitlines()] == [f"{path}:{line}" for line in (3, 4, 5)]


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


BAD_YAML = [
    ("a: [1\nb: 2\n", "experiment/x.yaml", ":2:"),
    ("a: 'x\n", "experiment/x.yaml", ":2:"),
    ("\tseed: 1\n", "experiment/x.yaml", ":1:"),
    ("seed: 1\nseed: 2\n", "experiment/x.yaml", ":2:"),
    ("task: {source: ${seed}}\n", "experiment/x.yaml", ":1:"),
]


@pytest.mark.parametrize(("text", "name", "place"), BAD_YAML)
def test_broken_yaml(llmft, tmp_path, text, name, place):
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
def test_wrong_yaml(llmft, tmp_path, text, said):
    path = write(tmp_path / "llmft_conf/experiment/x.yaml", "# @package _global_\n" + text)
    assert llmft("train", "experiment=x") == 2
    assert said in llmft.err
    assert llmft.err.startswith("error: ")
    if "defaults" not in text:
        assert str(path) in llmft.err
    assert llmft.err.count("\n") == 1


def test_user_files_of_a_group(llmft, tmp_path):
    write(tmp_path / "llmft_conf/task/mine.yaml", 'name: mine\nsource: "{q}"\ntarget: "{a}"\n')
    assert llmft("train", "task=mine") == 0
    assert (llmft.runs[0].task.name, llmft.runs[0].task.metrics) == ("mine", {})
    path = write(tmp_path / "llmft_conf/task/mine.yaml", "name: mine\nsuorce: x\n")
    assert llmft("train", "task=mine") == 2
    assert llmft.err.startswith(f"error: {path}:2: llmft train has no setting task.suorce. Did you mean task.source")


def test_a_file_that_would_be_ignored(llmft, tmp_path):
    path = write(tmp_path / "llmft_conf/model/gpt2.yaml", "name: mine\n")
    assert llmft("train") == 2
    assert llmft.err.startswith(f"error: {path}: ")
    assert "conf/model/gpt2.yaml has the same name and would be read instead. Rename your file." in llmft.err


def test_a_launcher_of_ones_own_names_no_code(llmft, tmp_path):
    write(tmp_path / "llmft_conf/hydra/launcher/mine.yaml", "_target_: os.system\n")
    assert llmft("train", "hydra/launcher=mine") == 2
    assert "hydra.launcher._target_: cannot be set" in llmft.err


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


@pytest.mark.parametrize("text", ["seed: 1\n", "", "defaults:\n  - override /task: summarization\n"])
def test_an_experiment_without_its_first_line(llmft, tmp_path, text):
    path = write(tmp_path / "llmft_conf/experiment/x.yaml", text)
    assert llmft("train", "experiment=x") == 2
    where = "experiment/x.yaml" if "override" in text else f"{path}:1"
    assert llmft.err == (f"error: {where}: an experiment is settings from the top. Make its first line: # @package _global_\n")


def test_rules_come_together(llmft):
    assert llmft("train", "training.batch_size=0", "optimizer.lr=0", "training.metric=rogueL") == 2
    assert llmft.err.count("error: ") == 3
    assert "Did you mean rougeL?" in llmft.err


def test_yaml_in_another_encoding(llmft, tmp_path):
    path = write(tmp_path / "llmft_conf/experiment/x.yaml", "")
    path.write_bytes("# @package _global_\ntask:\n  name: Übersetzung\n".encode("latin-1"))
    assert llmft("train", "experiment=x") == 2
    assert llmft.err == f"error: {path}: not UTF-8. Save it as UTF-8.\n"

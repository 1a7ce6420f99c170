"""Settings that do not exist and values of the wrong kind, typed or in YAML: one sentence each, with what was probably meant."""

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


def as_yaml(key, value):
    """The YAML of a dotted key, and the line that its last part is on (after a line for the header)."""
    parts = key.split(".")
    lines = [f"{'  ' * depth}{part}:" for depth, part in enumerate(parts)]
    return "# @package _global_\n" + "\n".join(lines) + f" {value}\n", len(lines) + 1


@pytest.mark.parametrize(("key", "hint"), UNKNOWN)
def test_unknown_key_in_yaml(llmft, tmp_path, write, key, hint):
    text, line = as_yaml(key, 1)
    path = write(tmp_path / "llmft_conf/experiment/mine.yaml", text)
    assert llmft("train", "experiment=mine") == 2
    line = line if key.startswith(("training.", "optimizer.", "task.")) else 2  # else the section itself is unknown
    assert llmft.err.startswith(f"error: {path}:{line}: llmft train has no setting {key.split('.')[0]}")
    if line > 2 or "." not in key:
        assert hint in llmft.err
    assert llmft.err.count("\n") == 1


@pytest.mark.parametrize(("key", "value", "expected"), [row for row in WRONG_VALUES if row[0] != "optimizer"])
def test_wrong_value_in_yaml(llmft, tmp_path, write, key, value, expected):
    text, line = as_yaml(key, value)
    path = write(tmp_path / "llmft_conf/experiment/mine.yaml", text)
    assert llmft("train", "experiment=mine") == 2
    assert llmft.err.startswith(f"error: {path}:{line}: {key}: found ")
    assert expected in llmft.err

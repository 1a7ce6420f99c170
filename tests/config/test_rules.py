"""Each rule broken once, and none broken by the defaults."""

import pytest

from llmft.config import rules
from llmft.config.schema import AdapterKind, EvalRun, LabelKind, PredictRun, TrainRun


def put(run, key, value):
    *parts, last = key.split(".")
    for part in parts:
        run = getattr(run, part)
    setattr(run, last, value)


def problems(*changes, root=TrainRun):
    run = root()
    run.model.name, run.task.metrics = "gpt2", {"rouge": {}}
    for key, value in changes:
        put(run, key, value)
    return rules.check(run)


@pytest.mark.parametrize("root", [TrainRun, EvalRun, PredictRun])
def test_the_defaults_are_in_order(root):
    assert problems(root=root) == []


BROKEN = [
    ("training.batch_size", 0), ("training.max_steps", 0), ("training.micro_tokens", 0), ("training.keep", 0),
    ("training.patience", 0), ("training.log_every", 0), ("training.epochs", 0.0), ("optimizer.lr", 0.0), ("optimizer.lr", -1.0),
    ("optimizer.lr", float("nan")), ("optimizer.lr", float("inf")), ("optimizer.weight_decay", -0.1),
    ("optimizer.max_grad_norm", 0.0), ("training.skip_spikes", 1.0), ("schedule.warmup", -1.0), ("training.eval_every", "often"), ("training.eval_every", "0"),
    ("training.save_every", "2 hours"), ("training.metric", "rogueL"), ("task.data.holdout", 0.5), ("task.data.holdout", -0.1),
    ("task.data.max_train", 0), ("task.data.max_bad_rows", -1), ("task.max_source_tokens", 0), ("task.max_answer_tokens", 0), ("task.metrics", {"rouge": 3}),
    ("generation.max_new_tokens", 0), ("generation.num_beams", 0), ("generation.top_p", 0.0), ("generation.top_p", 1.1),
    ("generation.top_k", 0), ("generation.temperature", -0.1), ("generation.repetition_penalty", 0.0),
    ("generation.batch_size", 0), ("hardware.threads", 0), ("hardware.threads", 100_000), ("gate.min", {"rougL": 3.0}), ("gate.max", {"bleu": 3.0}),
    ("gate.baseline", "outputs/r"), ("gate.max_drop", {"rougeL": 1.0}), ("model.package", "weights"),
    ("model.package_file", "x.gguf"), ("export.merge", True), ("task.overlap", -1), ("adapter.frozen_layers", -1), ("task.labels", ["a", "b", "a"]),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), BROKEN)
def test_broken(key, value):
    (problem,) = problems((key, value))
    assert problem.startswith(key)


TOGETHER = [
    ("task.overlap=64: the window is", [("task.overlap", 64), ("task.max_source_tokens", 64)]),
    ("schedule.warmup", [("schedule.warmup", 20.0), ("training.max_steps", 20)]),
    ("training.patience=3 needs", [("training.patience", 3), ("training.eval_every", "never")]),
    ("training.metric=rougeL needs", [("training.metric", "rougeL"), ("training.eval_every", "never")]),
    ("generation.num_beams=4 with", [("generation.num_beams", 4), ("generation.temperature", 0.7)]),
    ("gate.min.rougeL=30 is above", [("gate.min", {"rougeL": 30.0}), ("gate.max", {"rougeL": 20.0})]),
    ("gate.max_drop.rougeL=-1", [("gate.baseline", "r"), ("gate.max_drop", {"rougeL": -1.0})]),
    ("adapter.frozen_layers=2 with", [("adapter.frozen_layers", 2), ("model.scratch", {"d_model": 64})]),
    ("adapter.r=0", [("adapter.name", AdapterKind.lora), ("adapter.r", 0)]),
    ("adapter.alpha", [("adapter.name", AdapterKind.lora), ("adapter.alpha", 0.0)]),
    ("adapter.dropout", [("adapter.name", AdapterKind.lora), ("adapter.dropout", 1.0)]),
]


@pytest.mark.parametrize(("start", "changes"), TOGETHER)
def test_broken_together(start, changes):
    (problem,) = problems(*changes)
    assert problem.startswith(start)


FINE = [
    [("schedule.warmup", 0.9), ("training.max_steps", 20)], [("schedule.warmup", 19.0), ("training.max_steps", 20)],
    [("training.max_steps", 1)], [("training.metric", "rougeLsum")], [("gate.min", {"rougeL": 1.0, "loss": 0.0})],
    [("gate.baseline", "r"), ("gate.max_drop", {"rougeL": 0.5})], [("adapter.r", 0)],
    [("task.metrics", {"mine": {"call": "my.score"}}), ("training.metric", "any"), ("gate.min", {"other": 1.0})],
    [("export.merge", True), ("adapter.name", AdapterKind.lora)], [("training.eval_every", "never")],
    [("model.package", "weights"), ("model.package_file", "x.gguf")], [("generation.top_p", 1.0), ("generation.temperature", 0.7)],
]  # fmt: skip


@pytest.mark.parametrize("changes", FINE)
def test_in_order(changes):
    assert problems(*changes) == []


def test_the_scores_of_rouge_are_those_it_gives():
    from llmft.metrics.rouge import rouge

    assert rules.SCORES["rouge"] == tuple(score.name for score in rouge(["a"], [["a"]]))


def test_all_together():
    assert len(problems(*BROKEN[:3], ("generation.top_p", 2.0), ("task.data.holdout", 0.7))) == 5


SECRETS = [
    "hf_" + "aB3" * 12, "sk-" + "aB3" * 12, "sk-proj-" + "aB3" * 12, "ghp_" + "aB3" * 12, "github_pat_" + "aB3" * 12,
    "AKIA" + "ABCD" * 4, "Bearer " + "aB3" * 12, "https://me:hunter2@example.org/data.jsonl", "xoxb-" + "1234567890-" * 3,
]  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("key", ["model.revision", "task.prompt", "output_dir"])
def test_secrets_are_refused_and_not_repeated(secret, key):
    (problem,) = problems((key, f"x {secret} y"))
    assert problem.startswith(f"{key}: looks like a secret")
    assert secret not in problem


@pytest.mark.parametrize("options", [{"a": {"b": ["hf_" + "aB3" * 12]}}, {"hf_" + "aB3" * 12: 1}])
def test_secrets_are_found_in_options(options):
    (problem,) = problems(("optimizer.options", options))
    assert problem.startswith("optimizer.options.")
    assert "aB3" not in problem


@pytest.mark.parametrize("text", ["risk-assessment-of-a-very-long-name", "task-summarization-with-many-words", "hf_small",
                                  "https://example.org:8080/a", "The bearer of bad news", "s3://bucket/AKIA"])  # fmt: skip
def test_ordinary_text_is_no_secret(text):
    assert problems(("task.prompt", text)) == []


def test_scores_that_are_never_measured():
    """A run would only find out at its end, or in a validation where a row was given two labels."""
    assert problems(("gate.max", {"loss": 2.0})) == []
    [said] = problems(("gate.max", {"loss": 2.0}), root=EvalRun)
    assert said == "gate.max.loss: the loss is measured in training alone. Name a score of the task."
    several = ("task.label_kind", LabelKind.multi), ("task.metrics", {"classification": {}})
    assert problems(*several, ("training.metric", "f1_macro")) == []
    [said] = problems(*several, ("training.metric", "matthews"))
    assert said == "training.metric=matthews: rows with several labels have none. Name another score, such as f1_macro."

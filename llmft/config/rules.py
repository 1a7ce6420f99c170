"""Rules between settings and on their ranges, which types cannot say. All that is broken is reported at once."""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from enum import Enum
from typing import Any

from llmft.config import names
from llmft.config.every import parse_every
from llmft.config.schema import AdapterKind, EvalRun, Gate, Generation, LabelKind, PredictRun, Task, TrainRun
from llmft.config.secrets import describe, redact
from llmft.config.shown import visible
from llmft.errors import ConfigError

SCORES = {
    "rouge": ("rouge1", "rouge2", "rougeL", "rougeLsum"),
    "chrf": ("chrf2", "chrf2pp"),
    "squad": ("exact_match", "f1"),
    "perplexity": ("perplexity", "bits_per_byte"),
    "classification": ("accuracy", "f1_macro", "f1_micro", "matthews"),
    "regression": ("pearson", "spearman", "mae"),
    "health": ("empty", "cut", "copied", "distinct1", "distinct2", "repeated4"),
}
"""Scores of the built-in metrics that have several, or one of another name; all others give one score of their own name."""

MOST_THREADS = 1024
"""No machine has more cores; with very many, OpenMP takes the process down without a word."""


MOST_DROPPED = 0.99
"""With more, an adapter sees nothing of most documents."""

LARGEST_SEED = 2**63 - 1
"""torch takes no larger ones."""

UNWRITABLE = re.compile("[\0\ud800-\udfff]")
"""No file is named with a NUL, and half a surrogate pair (a byte of a command line that is no UTF-8) is no character."""


def check(run: TrainRun | EvalRun | PredictRun) -> list[str]:
    """What is wrong with the settings, one sentence each; empty if the command can start."""
    wrong = [
        f"{redact(key)}: {what}, which would be written into the run. Keep it in the environment alone."
        for key, value in _leaves(run)
        if (what := describe(f"{key}\n{value}"))
    ]
    wrong += [
        f"{visible(key)}: found {visible(value)!r}, expected text that can be written as UTF-8, without NUL."
        for key, value in _leaves(run)
        if isinstance(value, str) and UNWRITABLE.search(key + value)
    ]
    if not 0 <= run.seed <= LARGEST_SEED:
        wrong.append(f"seed={run.seed}: expected 0 to {LARGEST_SEED}.")
    wrong += _infinite(run)
    wrong += _task(run.task)
    wrong += _generation(run.generation)
    if run.model.package is not None and run.model.package_file is None:
        wrong.append(f"model.package={run.model.package}: which file in it? Add model.package_file=NAME.gguf")
    if run.model.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", run.model.sha256):
        wrong.append(f"model.sha256={run.model.sha256}: expected 64 hex digits, as results.json of a run has them.")
    if run.model.trust_remote_code and not re.fullmatch("[0-9a-f]{40}", run.model.revision or ""):
        wrong.append(
            f"model.trust_remote_code=true with model.revision={run.model.revision or 'null'}: code that can change is not to be trusted."
            " Set model.revision to the full commit, 40 hex digits, whose code you have read."
        )
    if run.model.package_file is not None and run.model.package is None:
        wrong.append(f"model.package_file={run.model.package_file}: in which package? Add model.package=NAME")
    wrong += _at_least(run.hardware, "hardware", threads=1)
    if run.hardware.threads is not None and run.hardware.threads > MOST_THREADS:
        wrong.append(f"hardware.threads={run.hardware.threads}: expected {MOST_THREADS} or less.")
    if not isinstance(run, PredictRun):
        wrong += _gate(run.gate, run.task, losses=isinstance(run, TrainRun))
    if isinstance(run, TrainRun):
        wrong += _training(run)
    return wrong


def _task(task: Task) -> list[str]:
    wrong = _at_least(task, "task", max_source_tokens=1, max_target_tokens=1, overlap=0, max_answer_tokens=1)
    if task.max_source_tokens is not None and task.overlap >= max(1, task.max_source_tokens):
        wrong.append(
            f"task.overlap={task.overlap}: the window is task.max_source_tokens={task.max_source_tokens}. Set it lower."
        )
    if twice := [label for place, label in enumerate(task.labels) if label in task.labels[:place]]:
        wrong.append(f"task.labels: {twice[0]!r} stands there twice. Name each class once.")
    wrong += _at_least(task.data, "task.data", max_train=1, max_validation=1, max_test=1, max_bad_rows=0)
    if not 0 <= task.data.holdout < 0.5:
        wrong.append(f"task.data.holdout={task.data.holdout:g}: expected a share from 0 to below 0.5, it is taken twice.")
    for name, options in task.metrics.items():
        if options is not None and not isinstance(options, dict):
            wrong.append(f"task.metrics.{name}={options}: expected the metric's options, name: value; with none: {name}: {{}}")
    return wrong


def _generation(generation: Generation) -> list[str]:
    wrong = _at_least(generation, "generation", max_new_tokens=1, num_beams=1, top_k=1, no_repeat_ngram_size=0, batch_size=1)
    if not 0 < generation.top_p <= 1:
        wrong.append(f"generation.top_p={generation.top_p:g}: expected above 0, up to 1 (1: all tokens).")
    if generation.temperature < 0:
        wrong.append(f"generation.temperature={generation.temperature:g}: expected 0 (no sampling) or above.")
    if generation.repetition_penalty <= 0:
        wrong.append(f"generation.repetition_penalty={generation.repetition_penalty:g}: expected above 0 (1: none).")
    if generation.num_beams > 1 and generation.temperature > 0:
        wrong.append(
            f"generation.num_beams={generation.num_beams} with generation.temperature={generation.temperature:g}:"
            " beam search does not sample. Set num_beams=1 or temperature=0."
        )
    return wrong


def _training(run: TrainRun) -> list[str]:
    training, schedule, optimizer, adapter = run.training, run.schedule, run.optimizer, run.adapter
    wrong = _at_least(training, "training", max_steps=1, batch_size=1, micro_tokens=1, keep=1, patience=1, log_every=1)
    if training.epochs <= 0:
        wrong.append(f"training.epochs={training.epochs:g}: expected above 0.")
    if training.skip_spikes is not None and training.skip_spikes <= 1:
        wrong.append(f"training.skip_spikes={training.skip_spikes:g}: expected above 1, or null to skip no step.")
    if optimizer.lr <= 0:
        wrong.append(f"optimizer.lr={optimizer.lr:g}: expected above 0.")
    if optimizer.weight_decay < 0:
        wrong.append(f"optimizer.weight_decay={optimizer.weight_decay:g}: expected 0 or above.")
    if optimizer.max_grad_norm is not None and optimizer.max_grad_norm <= 0:
        wrong.append(f"optimizer.max_grad_norm={optimizer.max_grad_norm:g}: expected above 0, or null for no limit.")
    if schedule.warmup < 0:
        wrong.append(f"schedule.warmup={schedule.warmup:g}: expected steps, or a share below 1.")
    elif training.max_steps is not None and schedule.warmup >= max(1, training.max_steps):
        wrong.append(
            f"schedule.warmup={schedule.warmup:g} leaves no step of training.max_steps={training.max_steps}. Set it lower."
        )
    intervals = {}
    for name in ("eval_every", "save_every"):
        try:
            intervals[name] = parse_every(getattr(training, name))
        except ConfigError as error:
            wrong.append(f"training.{name}: {error}.")
    if "eval_every" in intervals and intervals["eval_every"] is None:
        if training.patience is not None:
            wrong.append(f"training.patience={training.patience} needs validations. Set training.eval_every, or patience=null.")
        if training.metric != "loss":
            wrong.append(f"training.metric={training.metric} needs validations. Set training.eval_every, or metric=loss.")
    wrong += _score("training.metric=" + training.metric, training.metric, run.task)
    if adapter.name is AdapterKind.lora:
        wrong += _at_least(adapter, "adapter", r=1)
        if adapter.alpha <= 0:
            wrong.append(f"adapter.alpha={adapter.alpha:g}: expected above 0; 2 x adapter.r is usual.")
        if not 0 <= adapter.dropout <= MOST_DROPPED:
            wrong.append(f"adapter.dropout={adapter.dropout:g}: expected a share from 0 to {MOST_DROPPED:g}.")
    wrong += _at_least(adapter, "adapter", frozen_layers=0)
    if adapter.frozen_layers and run.model.scratch:
        wrong.append(
            f"adapter.frozen_layers={adapter.frozen_layers} with model.name={run.model.name}: a Transformer from scratch has random"
            " weights, which cannot stay as they are. Set it to 0."
        )
    if adapter.name is AdapterKind.lora and run.model.scratch:
        wrong.append(
            f"adapter=lora with model.name={run.model.name}: a Transformer from scratch has random weights, which cannot stay as they"
            " are. Set adapter=none."
        )
    if run.gate.baseline == "latest":
        wrong.append("gate.baseline=latest: when the gate is held, that is this run itself. Name the run's directory.")
    if adapter.name is not AdapterKind.lora and run.export.merge:
        wrong.append("export.merge=true: there is no adapter to merge. Set adapter=lora, or export.merge=false.")
    return wrong


def _gate(gate: Gate, task: Task, losses: bool) -> list[str]:
    wrong = []
    for part in ("min", "max", "max_drop"):
        for name in getattr(gate, part):
            if name == "loss" and not losses:
                wrong.append(f"gate.{part}.loss: the loss is measured in training alone. Name a score of the task.")
                continue
            wrong += _score(f"gate.{part}.{name}", name, task)
    for name in gate.min.keys() & gate.max.keys():
        if gate.min[name] > gate.max[name]:
            wrong.append(f"gate.min.{name}={gate.min[name]:g} is above gate.max.{name}={gate.max[name]:g}: nothing can pass.")
    wrong += [f"gate.max_drop.{name}={drop:g}: expected 0 or above." for name, drop in gate.max_drop.items() if drop < 0]
    if gate.baseline is not None and not gate.max_drop:
        wrong.append(f"gate.baseline={gate.baseline}: how far may a score fall below it? Add gate.max_drop.SCORE=0.5")
    if gate.max_drop and gate.baseline is None:
        wrong.append("gate.max_drop: compared with what? Add gate.baseline=RUN")
    return wrong


def _score(where: str, name: str, task: Task) -> list[str]:
    """Say that the task has no such score; a metric of one's own may give scores of any name."""
    if any(metric not in names.METRICS for metric in task.metrics):
        return []
    known = ["loss", *(score for metric in task.metrics for score in SCORES.get(metric, (metric,)))]
    if task.label_kind is LabelKind.multi and name == "matthews":
        return [f"{where}: rows with several labels have none. Name another score, such as f1_macro."]
    if name in known:
        return []
    near = get_close_matches(name, known, 1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return [f"{where}: the task has no such score.{hint} It has {', '.join(known)}; task.metrics adds others."]


def _at_least(section: Any, prefix: str, **least: int) -> list[str]:
    """The settings of a section that are below their least value; null passes."""
    values = {name: getattr(section, name) for name in least}
    return [
        f"{prefix}.{name}={value}: expected {least[name]} or more."
        for name, value in values.items()
        if value is not None and value < least[name]
    ]


def _infinite(run: Any) -> list[str]:
    wrong = [key for key, value in _leaves(run) if isinstance(value, float) and not math.isfinite(value)]
    return [f"{key}: expected a finite number." for key in wrong]


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Key and value of every setting; of name: value pairs the names too, which can be secrets as well."""
    inner: Iterable[tuple[str, Any]]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    elif isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = ((str(place), item) for place, item in enumerate(value))
    else:
        yield key, value.name if isinstance(value, Enum) else value
        return
    for name, item in inner:
        yield from _leaves(item, f"{key}.{name}" if key else str(name))

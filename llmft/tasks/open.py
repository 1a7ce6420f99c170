"""From settings to a task with its model, ready to train, score or predict."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from llmft.config import names
from llmft.config.bind import bind
from llmft.config.schema import (
    AdapterKind,
    ControlTokens,
    Dtype,
    EvalRun,
    Formulation,
    LabelKind,
    Model,
    PredictRun,
    Task,
    TrainRun,
)
from llmft.data.row import Row
from llmft.data.strict_json import shortened
from llmft.errors import ConfigError
from llmft.hardware.determinism import prepare
from llmft.hardware.device import choose_device
from llmft.hardware.gradients import reserve_gradients
from llmft.hardware.precision import choose_precision
from llmft.models.attention import checkpoint_layers
from llmft.models.family import Family
from llmft.models.frozen import Frozen, freeze
from llmft.models.load import Pretrained, load_family, load_pretrained, panics_explained
from llmft.models.locate import locate
from llmft.models.scratch import make_scratch
from llmft.runs import status
from llmft.runs.provenance import hash_file
from llmft.tasks.bound import BoundTask, bind_task
from llmft.tasks.formulation import Learner
from llmft.tasks.label import find_labels

DTYPES = {Dtype.float32: torch.float32, Dtype.bfloat16: torch.bfloat16}
PROBLEMS = {
    LabelKind.single: "single_label_classification",
    LabelKind.multi: "multi_label_classification",
    LabelKind.value: "regression",
}
"""transformers' names, which decide how a saved model computes its loss."""

EXAMPLES = {
    Family.decoder: "model=smollm2_135m, gpt2 or qwen3_0_6b",
    Family.encoder_decoder: "model=t5_small, bart_base or opus_mt_en_de",
    Family.encoder: "model=bert_base or roberta_base",
}
INSTEAD = {
    ("text_to_text", Family.encoder): "an encoder reads and does not write",
    ("span", Family.decoder): "a decoder does not see what follows a word; it answers by task=question_answering",
    ("span", Family.encoder_decoder): "an encoder-decoder writes its answers by task=question_answering",
    (
        "language_model",
        Family.encoder_decoder,
    ): "an encoder-decoder writes after reading; it learns by task=summarization and the like",
}
"""Why a formulation and a family do not go together, or what would."""


def open_training(run: TrainRun, bound: BoundTask, folder: Path) -> Learner:
    """Load the model in `folder` for training, with a fresh adapter if one is asked for."""
    make = choose_learner(folder, run.task, run.model.trust_remote_code)
    prepare(run.hardware, run.seed)
    device = choose_device(run.hardware)
    precision = choose_precision(run.hardware, device)
    lora = run.adapter.name is AdapterKind.lora
    # what is trained stays float32; what is frozen needs no more digits than the arithmetic reads
    dtype = DTYPES.get(run.model.dtype, precision if lora else torch.float32)
    pretrained = load_pretrained(folder, dtype, device, **head_of(make, run.task), code=run.model.trust_remote_code)
    fixed: list[str] = []
    if run.adapter.frozen_layers:
        fixed = freeze(pretrained.model, run.adapter.frozen_layers)
        pretrained.frozen = Frozen(run.adapter.frozen_layers)
    if lora:
        from llmft.models.adapter import (
            add_adapter,
        )  # here: peft takes its time to import, and a run without an adapter has none

        add_adapter(pretrained, run.adapter, fixed)
        reserve_gradients(weight for _, weight in pretrained.trained)
    if run.model.gradient_checkpointing:
        checkpoint_layers(pretrained.model)
    pretrained.model.train()
    pretrained.tokenizer.split_special_tokens = run.task.control_tokens is ControlTokens.text
    with panics_explained(pretrained.folder):
        learner: Learner = make(bound.formulation(run.task, bound, run.seed), pretrained, run.generation, precision)
    return learner


def open_task(run: EvalRun | PredictRun, trained: Path | None) -> Learner:
    """Load what a run directory has trained, or a plain model, for scoring and prediction."""
    bound = bind_task(run.task, run.plugins)
    prepare(run.hardware, run.seed)
    device = choose_device(run.hardware)
    precision = choose_precision(run.hardware, device)
    if trained is None:
        folder, code = locate(run.model), run.model.trust_remote_code
        make = choose_learner(folder, run.task, code)
        dtype = DTYPES.get(run.model.dtype, torch.float32)
        pretrained = load_pretrained(folder, dtype, device, **head_of(make, run.task), code=code)
        if pretrained.new:
            raise ConfigError(
                f"model.name={run.model.name}: its {', '.join(pretrained.new)} would be random, and so the predictions. Train it "
                "first (llmft train), or name a model that was trained for this task."
            )
    else:
        make, pretrained = load_trained(run, trained, precision, device)
    pretrained.model.eval()
    pretrained.tokenizer.split_special_tokens = run.task.control_tokens is ControlTokens.text
    with panics_explained(pretrained.folder):
        learner: Learner = make(bound.formulation(run.task, bound, run.seed), pretrained, run.generation, precision)
    return learner


def load_trained(
    run: EvalRun | PredictRun, trained: Path, precision: torch.dtype, device: torch.device
) -> tuple[Any, Pretrained]:
    """Load the final model of a run directory, in the number formats it was trained in, and what learns with it."""
    folder = trained / "model"
    if not folder.is_dir():
        raise ConfigError(f"run={trained}: the run has no model yet: {status.advice(trained)}")
    if not (folder / "adapter_config.json").is_file():
        make = choose_learner(folder, run.task)
        pretrained = load_pretrained(folder, DTYPES.get(run.model.dtype, torch.float32), device, **head_of(make, run.task))
        check_complete(pretrained, trained)
        return make, pretrained
    check_classes(run.task, trained)
    base, code = locate(run.model), run.model.trust_remote_code
    make = choose_learner(base, run.task, code)
    pretrained = load_pretrained(base, DTYPES.get(run.model.dtype, precision), device, **head_of(make, run.task), code=code)
    from llmft.models.adapter import load_adapter  # as above

    load_adapter(pretrained, folder)
    check_complete(pretrained, trained)
    return make, pretrained


def check_complete(pretrained: Pretrained, trained: Path) -> None:
    """Raise ConfigError where a part of the model comes neither from the run nor from what it started from."""
    if pretrained.new:
        raise ConfigError(
            f"run={trained}: its model was not trained for these settings: {', '.join(pretrained.new)} would be random. Leave "
            "out task.labels, task.label_kind and task=... , or name another run."
        )


def check_classes(task: Task, trained: Path) -> None:
    """Raise ConfigError unless the task's classes are those of the adapter, whose head knows them by their places alone."""
    if task.formulation is not Formulation.label:
        return
    saved = json.loads((trained / "model" / "llmft.json").read_text())
    for name, asked in (("label_kind", task.label_kind.value), ("labels", list(task.labels))):
        learnt = saved.get(name)
        if learnt != asked and not (name == "labels" and task.label_kind is LabelKind.value):
            raise ConfigError(
                f"run={trained}: its adapter was trained with task.{name}={shortened(learnt)}, not {shortened(asked)}. Leave out "
                "task.labels, task.label_kind and task=... , or name another run."
            )


def locate_base(model: Model, rows: Iterable[Row], task: Task, bound: BoundTask, seed: int, content: str) -> Path:
    """Return the folder of the model to start from; one from scratch is made first, its tokenizer from the training rows."""
    if not model.scratch:
        return locate(model)
    if task.formulation is not Formulation.text_to_text:
        raise ConfigError(
            f"model.name={model.name}: a Transformer from scratch is an encoder-decoder, for tasks that write; "
            f"{task.formulation.value} starts from pretrained weights ({EXAMPLES[Family.encoder]})"
        )
    formulation = bound.formulation(task, bound, seed)

    def texts() -> Iterable[str]:
        for example in formulation.examples(rows):
            source = [example.source] if isinstance(example.source, str) else [turn.content for turn in example.source]
            yield from (*source, *([example.context] if example.context else []), example.targets[0])

    return make_scratch(model.name, model.scratch, texts, seed, content)


def with_labels(task: Task, rows: Iterable[Row]) -> Task:
    """Return the task with the names of its classes, from the training rows where it does not name them itself."""
    if task.formulation is not Formulation.label or task.label_kind is LabelKind.value or task.labels:
        return task
    return replace(task, labels=find_labels(task, rows))


def head_of(learner: Any, task: Task) -> dict[str, Any]:
    """Return what the model's last layer is for."""
    if task.formulation is not Formulation.label:
        return {"head": learner.head}
    return {"head": learner.head, "labels": tuple(task.labels), "problem": PROBLEMS[task.label_kind]}


def choose_learner(folder: Path, task: Task, code: bool = False) -> Any:
    """Return what trains this family of models on the task. Raises ConfigError, before any weights are loaded, if nothing does."""
    family, formulation = load_family(folder, code), task.formulation.value
    learners = names.LEARNERS[formulation]
    if family.value in learners:
        return bind(family.value, learners, [], "task.formulation")
    others = "; ".join(EXAMPLES[Family(name)] for name in learners)
    raise ConfigError(
        f"model.name: {folder.name} is {'a' if family is Family.decoder else 'an'} {family.value}, and task={task.name} "
        f"({formulation}) does not go with it: {INSTEAD[formulation, family]}. Or use another model: {others}."
    )


def weights_mark(trained: Path | None) -> str | None:
    """Return a hash that tells a run's final weights from those of another run in the same place; None without a run."""
    manifest = trained / "model" / "manifest.json" if trained else None
    return hash_file(manifest) if manifest and manifest.is_file() else None

"""llmft train: from settings to a tuned model, scored before and after, everything written down.

Step 1 of the method, initialise from pretrained weights, is here; steps 2 to 7 are the loop in `fit`.
"""

import json
import os
import shlex
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from llmft.config.bind import bind_all
from llmft.config.dump import config_yaml, fingerprinted, rerun_yaml, to_values
from llmft.config.schema import Shuffle, TrainRun
from llmft.data.audit import sentences
from llmft.data.dataset import RowSource, open_splits
from llmft.data.example import Example
from llmft.data.order import Order
from llmft.errors import DataError
from llmft.evaluate import conclude, raise_unmet, read_baseline
from llmft.fit import fit
from llmft.hardware.determinism import changed_bits, num_threads
from llmft.hardware.memory import explained, peak_bytes
from llmft.models.export import export
from llmft.models.head import class_of
from llmft.models.locate import content_hash
from llmft.reports.card import write_card
from llmft.reports.console import logged, say, show_plan
from llmft.reports.diagnosis import DataCounts
from llmft.reports.record import Record
from llmft.reports.results import Objective, Results, TrainSummary
from llmft.runs import durable
from llmft.runs.directory import RunDirectory, claim
from llmft.runs.provenance import environment, fingerprint, killed_for_memory
from llmft.runs.recorded import recorded
from llmft.step import Work
from llmft.tasks.bound import BoundTask, bind_task
from llmft.tasks.open import choose_learner, locate_base, open_training, with_labels
from llmft.tasks.prepare import make_plan, prepare_corpus
from llmft.tasks.scoring import Scored, baseline_metrics, score_examples
from llmft.training import checkpoint, shelf
from llmft.training.bound import MakeOptimizers, bind_optimizer, bind_schedule
from llmft.training.checkpoint import Position
from llmft.training.memory import Plan
from llmft.training.optimizer import parameter_groups
from llmft.training.saver import Saver
from llmft.training.schedule import Schedule


def train(run: TrainRun, command: list[str]) -> float | None:
    """Fine-tune, score before and after, write everything down. Returns the best validation of training.metric.

    Raises an LlmftError, its class telling the exit code, or Stopped; the run directory says the same.
    """
    bound, make_optimizers, schedule = bind_run(run)
    splits = open_splits(run.task.data, bound.builtin, bound.row)
    if "train" not in splits:
        raise DataError("task.data.train is not set and the task has no built-in rows; name a file, a folder or a hub id")
    read_baseline(run.gate, run.output_root, "test", splits["test"].content if "test" in splits else "")
    folder = locate_base(run.model, splits["train"], run.task, bound, run.seed, splits["train"].content)
    choose_learner(folder, run.task, run.model.trust_remote_code)
    prints = fingerprints(run, splits, folder)
    label = f"{run.task.name}-{Path(run.model.name).name}"
    with (
        recorded(
            lambda: claim(run.output_root, run.output_dir, label, fingerprint(**prints), run.training.resume, command)
        ) as directory,
        logged(directory.path / "train.log"),
        explained(),
    ):
        began = time.monotonic()
        start_from = announce(directory, prints)
        run = replace(run, task=with_labels(run.task, splits["train"]))
        write_settings(directory, run, None if run.model.scratch else prints["model"])
        learner = open_training(run, bound, folder)  # 1 initialise from pretrained weights
        corpus = prepare_corpus(learner, splits, run.training.metric != "loss" or run.training.eval_generate)
        texts = corpus.train.texts() if run.training.shuffle is Shuffle.texts else None
        order = Order(len(corpus.train.rows), run.training.batch_size, run.seed, texts)
        plan = make_plan(run, learner, corpus, order, planned_before(directory))
        counts = write_plan(directory, plan, splits, corpus.audit)
        before = None
        if run.training.baseline and corpus.test_examples:
            path = directory.path / "predictions" / "test.before.jsonl"
            before = score_examples(learner, corpus.test_examples, path, "scoring the untuned model")
        optimizers = make_optimizers(parameter_groups(learner.pretrained.trained, run.optimizer.weight_decay))
        position = checkpoint.load(start_from, learner.pretrained, optimizers, prints) if start_from else Position()
        Record.resume(directory.path / "metrics.jsonl", position.step, position.validated)
        record = Record(directory.path / "metrics.jsonl", run.training.log_every)
        saver = Saver(directory.path / "checkpoints", prints, run.training.keep, run.training.async_save)
        work = Work(run, directory, learner, corpus, order, plan, optimizers, schedule, record, position, saver)
        fit(work)  # 2 to 7
        if learner.pretrained.frozen is not None:
            learner.pretrained.frozen.states = None  # they take their room on the disk as long as they are held
        finish(work, before, counts, prints, began, learner.formulation.examples(splits["train"]))
        return position.best


def bind_run(run: TrainRun) -> tuple[BoundTask, MakeOptimizers, Schedule]:
    """Turn every name of the run into what it stands for. Raises ConfigError with all that is wrong."""
    bound, make_optimizers, schedule = bind_all(
        lambda: bind_task(run.task, run.plugins),
        lambda: bind_optimizer(run.optimizer, run.plugins),
        lambda: bind_schedule(run.schedule, run.plugins),
    )
    return bound, make_optimizers, schedule


def fingerprints(run: TrainRun, splits: Mapping[str, RowSource], folder: Path) -> dict[str, str]:
    """Return what a run depends on, each as a hash: its settings, the rows, the base model's files."""
    return {
        "config": fingerprint(settings=fingerprinted(run)),
        "data": fingerprint(rows={name: rows.content for name, rows in splits.items()}),
        "model": content_hash(folder),
    }


def announce(directory: RunDirectory, prints: dict[str, str]) -> Path | None:
    """Say which directory the run writes to and where it goes on; return the checkpoint to start from."""
    found, notes = shelf.newest(directory.path / "checkpoints", prints)
    if directory.note:
        say(directory.note)
    if not directory.resumed:
        say(f"run {directory.path}")
    elif found is None:
        say(f"resuming {directory.path} from step 0: it has no {'whole ' if notes else ''}checkpoint{'' if notes else ' yet'}")
    else:
        say(f"resuming {directory.path} from step {shelf.step_of(found)}")
    for note in notes:
        say(note)
    if directory.previous and directory.previous.state == "dead" and (where := killed_for_memory(directory.path)):
        say(f"it died before its end: {where}. If it was this run, set training.micro_tokens lower; it then goes on with that")
    directory.make_latest()
    return found


def write_settings(directory: RunDirectory, run: TrainRun, sha256: str | None) -> None:
    """Record what was asked for, from which files of the base model, and what it runs on.

    Says so where the rest of the run is computed by something else.
    """
    run = replace(run, model=replace(run.model, sha256=sha256))
    durable.write_text(directory.path / "config.yaml", config_yaml(run))
    durable.write_text(directory.path / "rerun.yaml", rerun_yaml(run))
    path, now = directory.path / "environment.json", environment() | {"threads": num_threads(run.hardware)}
    if directory.resumed and path.exists() and (changed := changed_bits(json.loads(path.read_text()), now)):
        say(
            f"the run goes on with {', '.join(changed)}: its result is as good, but no longer bit for bit that of a run that was "
            "never stopped"
        )
    durable.write_json(path, now)


def planned_before(directory: RunDirectory) -> int | None:
    """Return the micro-batch size that a resumed run was planned with: sums are rounded in its order."""
    path = directory.path / "plan.json"
    return json.loads(path.read_text())["micro_tokens"] if path.exists() else None


def write_plan(directory: RunDirectory, plan: Plan, splits: Mapping[str, RowSource], found: dict[str, Any]) -> DataCounts:
    """Write data.json and plan.json, and show the plan."""
    sources = {
        name: {
            "description": rows.description,
            "files": rows.files,
            "content": rows.content,
            "bad_rows": list(map(vars, rows.bad_rows)),
        }
        for name, rows in splits.items()
    }
    cut = {"rows": plan.cut_rows, "tokens": plan.cut_tokens, "left_out": plan.left_out_rows}
    durable.write_json(
        directory.path / "data.json", {"schema_version": 1, "sources": sources, "audit": found, "train_cut": cut}
    )
    durable.write_json(directory.path / "plan.json", {"schema_version": 1, **plan.to_json()})
    show_plan(plan.summary())
    for sentence in chain(*(rows.left_out() for rows in splits.values()), sentences(found)[1:]):
        say(sentence)
    return DataCounts(found["rows"], {"train": plan.cut_rows}, found["duplicates"], found["overlap"])


def finish(
    work: Work, before: Scored | None, counts: DataCounts, prints: dict[str, str], began: float, train: Iterable[Example]
) -> None:
    """Take the best weights, score them, export the model and draw the conclusion."""
    run, learner, position, path = work.run, work.learner, work.position, work.directory.path
    if position.best_step is not None and position.best_step != position.step:
        checkpoint.load_best(work.saver.checkpoints, position.best_step, learner.pretrained, prints)
    export(learner.pretrained, path / "model", learner.generation_config(), learner.settings(), run.export.merge)
    examples = work.corpus.test_examples
    after = score_examples(learner, examples, path / "predictions" / "test.jsonl", "scoring the tuned model")
    higher = run.training.metric != "loss" and after.higher_is_better(run.training.metric)
    results = Results(
        task=str(run.task.name),
        task_version=run.task.version,
        model=run.model.name,
        split="test",
        n=len(examples),
        metrics=after.metrics,
        baselines=baseline_metrics(learner.formulation, examples, train),
        objective=Objective(run.training.metric, position.best, higher) if position.best is not None else None,
        train=summary(work),
        memory={"peak_bytes": peak_bytes(learner.pretrained.model.device)},
        fingerprints=prints | {"rows": work.corpus.test_content},
        seconds=time.monotonic() - began,
    )
    results = conclude(path, run, results, after, before, counts, work.plan.to_json(), next_commands(path))
    rows, versions = f"{len(work.corpus.train.rows)} rows", environment()["packages"]
    pretrained = learner.pretrained
    loader = class_of(pretrained.model.config, pretrained.family, pretrained.head).__name__
    write_card(path, results, to_values(run), versions, rows, loader)
    raise_unmet(results)


def summary(work: Work) -> TrainSummary:
    """Sum up what training took."""
    position = work.position
    return TrainSummary(
        steps=position.step,
        epochs=position.step / work.order.steps_per_epoch,
        examples=position.examples,
        tokens=position.tokens,
        loss_units=position.loss_units,
        loss_unit=work.learner.unit,
        seconds=position.seconds,
        tokens_per_second=position.tokens / position.seconds if position.seconds else 0.0,
        skipped_steps=position.skipped,
        best_step=position.best_step,
        final_loss=position.last_loss,
        validation_loss=position.validation_loss,
        validation_loss_before=position.validation_loss_before,
        path=work.plan.fast_path_reason,
        path_loss_difference=work.plan.fast_path_loss_difference,
        path_gradient_difference=work.plan.fast_path_gradient_difference,
    )


def next_commands(path: Path) -> list[str]:
    """Return what a user may want to type next."""
    run = shlex.quote(os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path))
    return [
        f"llmft eval run={run}",
        f"llmft predict run={run} input=FILE.jsonl output=predictions.jsonl",
        f"llmft train --config-dir {run} --config-name rerun",
    ]

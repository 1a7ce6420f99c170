"""llmft eval: score a finished run, a plain model or a predictions file; and the conclusion that train and eval draw from scores."""

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmft.config.dump import config_yaml, to_values
from llmft.config.schema import EvalRun, Gate, TrainRun
from llmft.config.schema import Formulation as Formulations
from llmft.data.dataset import RowSource, open_splits
from llmft.data.example import Example, LabelExample, Prediction, TextExample
from llmft.data.row import Row
from llmft.data.source import kind_of
from llmft.data.template import column_of
from llmft.errors import ConfigError, DataError, GateNotMet
from llmft.hardware.memory import explained
from llmft.reports import record
from llmft.reports import results as reports
from llmft.reports.console import say, show_findings, show_next, show_scores
from llmft.reports.diagnosis import DataCounts, diagnose
from llmft.reports.html import write_report
from llmft.reports.results import GateResult, Metric, Results
from llmft.runs import durable
from llmft.runs.directory import claim, resolve
from llmft.runs.provenance import environment, fingerprint, hash_file
from llmft.runs.recorded import recorded
from llmft.tasks.bound import BoundTask, bind_task
from llmft.tasks.formulation import Formulation
from llmft.tasks.open import open_task, weights_mark
from llmft.tasks.predictions import read_predictions
from llmft.tasks.scoring import Scored, baseline_metrics, differences, score_examples, score_predictions


def evaluate(run: EvalRun, command: list[str]) -> None:
    """Score one split, or a file of predictions, and write its predictions, results.json and report.html."""
    began = time.monotonic()
    trained = resolve(run.run, run.output_root) if run.run else None
    bound = bind_task(run.task, run.plugins)
    split = run.split.value
    splits = open_rows(run, bound)
    if split not in splits:
        raise DataError(
            f"split={split}: the task has no such rows; it has {', '.join(splits)}. Name them: task.data.{split}=FILE"
        )
    rows = splits[split]
    read_baseline(run.gate, run.output_root, split, rows.content)
    formulation: Formulation = bound.formulation(run.task, bound, run.seed)
    predictions: list[Prediction] = []
    if run.predictions:  # before the folder is claimed: a file that has to be repaired leaves none behind
        examples = references_of(run, formulation, rows)
        predictions = read_predictions(Path(run.predictions), formulation, examples, rows.description)
    model = run.predictions or str(trained or run.model.name)
    root = str(trained / "eval") if trained and not run.predictions else run.output_root
    label = split if trained and not run.predictions else f"eval-{run.task.name}-{Path(model).stem}"
    settings = {key: value for key, value in to_values(run).items() if key not in ("output", "output_root", "gate")}
    weights = hash_file(Path(run.predictions)) if run.predictions else weights_mark(trained)
    key = fingerprint(settings=settings, trained=str(trained), weights=weights, data=rows.content)
    with recorded(lambda: claim(root, run.output, label, key, "auto", command, setting="output")) as directory, explained():
        if directory.note:
            say(directory.note)
        say(f"{'resuming' if directory.resumed else 'eval'} {directory.path}")
        durable.write_text(directory.path / "config.yaml", config_yaml(run))
        durable.write_json(directory.path / "environment.json", environment())
        path = directory.path / "predictions" / f"{split}.jsonl"
        if run.predictions:
            scored = score_predictions(formulation, examples, predictions, path)
        else:
            learner = open_task(run, trained)
            formulation = learner.formulation
            examples = examples_of(formulation, rows)
            scored = score_examples(learner, examples, path, f"scoring {split}")
        train = formulation.examples(splits["train"]) if "train" in splits else ()
        results = Results(
            task=str(run.task.name),
            task_version=run.task.version,
            model=model,
            split=split,
            n=len(examples),
            metrics=scored.metrics,
            baselines=baseline_metrics(formulation, examples, train),
            fingerprints={"config": key, "rows": rows.content},
            seconds=time.monotonic() - began,
        )
        counts = DataCounts(rows={split: len(examples)})
        raise_unmet(conclude(directory.path, run, results, scored, None, counts, {}, [shlex.join(command)]))


def open_rows(run: EvalRun, bound: BoundTask) -> Mapping[str, RowSource]:
    """Return the rows by split; run.references stands for the split where it is named."""
    if run.predictions and not Path(run.predictions).is_file():
        raise DataError(f"predictions={run.predictions}: there is no such file")
    if run.references is None:
        return open_splits(run.task.data, bound.builtin, bound.row)
    if not Path(run.references).exists():
        raise DataError(f"references={run.references}: there is no such file")
    data = replace(run.task.data, train=None, validation=None, test=None, builtin=None)
    setattr(data, run.split.value, [run.references])
    return open_splits(data, None, None if texts_alone(run) else bound.row)


def texts_alone(run: EvalRun) -> bool:
    """Whether run.references is a text file with a reference a line, which has no columns for sources."""
    if run.references is None or not run.predictions or run.task.data.columns or kind_of(Path(run.references)) != ".txt":
        return False
    return run.task.formulation in (Formulations.text_to_text, Formulations.label) and run.task.target != "{text}"


def references_of(run: EvalRun, formulation: Formulation, rows: RowSource) -> list[Example]:
    """Return the examples that predictions belong to; a line of a text file is what task.target reads, of an empty source."""
    if not texts_alone(run):
        return examples_of(formulation, rows)
    target = column_of(run.task.target, "task.target").text
    sources = dict.fromkeys(formulation.columns, "")
    lines = [Row(sources | {target: row.fields["text"]}, row.where) for row in rows]
    found = formulation.examples(lines)
    return [replace(each, source="", context=None) for each in found if isinstance(each, TextExample | LabelExample)]


def examples_of(formulation: Formulation, rows: RowSource) -> list[Example]:
    """Return the examples to score. Raises DataError if there are none."""
    examples = list(formulation.examples(rows))
    for sentence in rows.left_out():
        say(sentence)
    if not examples:
        raise DataError(f"{rows.description}: no rows to score; name others with task.data.{rows.split}=FILE")
    return examples


def conclude(
    folder: Path,
    run: TrainRun | EvalRun,
    results: Results,
    after: Scored,
    before: Scored | None,
    counts: DataCounts,
    plan: Mapping[str, Any],
    commands: Sequence[str],
) -> Results:
    """Compare, diagnose, hold against the gates; write results.json and report.html, show them, and return them.

    Raises ConfigError, after results.json is written, for a gate on a score that there is not.
    """
    paired = differences(before, after, run.seed)
    rows = record.read(folder / "metrics.jsonl")
    findings = diagnose(*rows, results.metrics, paired, results.baselines, after.rows, counts)
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    untuned = before.metrics if before else None
    results = replace(results, before=untuned, paired=paired, checks=findings, finished=finished)
    results.write(folder / "results.json")
    results = replace(results, gates=check_gates(run.gate, results, run.output_root))
    results.write(folder / "results.json")
    write_report(folder, results, to_values(run), plan, after.rows, before.rows if before else [], commands)
    show_scores(results.before, results.metrics, paired, results.baselines)
    show_findings(findings)
    show_next(commands)
    return results


def raise_unmet(results: Results) -> None:
    """Raise GateNotMet if a gate is not met, naming all of those."""
    if unmet := [gate.sentence() for gate in results.gates if not gate.met]:
        raise GateNotMet("; ".join(unmet))


def gated_scores(results: Results) -> dict[str, Metric]:
    """Return the scores that gates may name: those of the split, and the validation loss of a training run."""
    scores = dict(results.metrics)
    if results.train and results.train.validation_loss is not None:
        scores["loss"] = Metric(results.train.validation_loss, None, None, 0, "mean per unit of loss, validation rows", False)
    return scores


def check_gates(gate: Gate, results: Results, output_root: str) -> list[GateResult]:
    """Hold scores against the run's gates, the baseline's read from its results.json."""
    baseline = read_baseline(gate, output_root, results.split, results.fingerprints.get("rows"))
    return reports.check_gates(gate, gated_scores(results), baseline)


def read_baseline(gate: Gate, output_root: str, split: str, rows: str | None) -> Results | None:
    """Return the results of the run that the gate compares with; called before any work too, so that a typo costs a second.

    Raises ConfigError if there is no such run, or if it scored other rows, so that its scores say nothing about these.
    """
    if gate.baseline is None:
        return None
    baseline = reports.read(resolve(gate.baseline, output_root) / "results.json")
    if (baseline.split, baseline.fingerprints.get("rows")) != (split, rows):
        raise ConfigError(
            f"gate.baseline={gate.baseline}: that run scored other rows than the {split} rows here: {baseline.split}, "
            f"n={baseline.n}. Score both on the same rows: task.data.{split}=FILE."
        )
    return replace(baseline, metrics=gated_scores(baseline))

"""What a run says about itself, in sentences: each with its evidence and, where something is wrong, the setting to change.

Rows are those of metrics.jsonl and predictions/SPLIT.jsonl; see docs/run-directory.md for their fields.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmft.reports import outputs
from llmft.reports.results import Difference, Finding, Metric
from llmft.reports.units import interval_text, score_text

Row = Mapping[str, Any]

CLEAR_CHANGE = 0.01
"""Share by which a validation loss has to move to count as risen or fallen."""
CUT_SHARE = 0.05
"""Above this share of truncated sources the run is warned about."""
DUPLICATE_SHARE = 0.01
OVERLAP_SHARE = 0.01
"""Above this share of evaluation rows that stand in training too, a score is not believed."""
UNLIKELY = 0.05
"""Above this p a gain may be chance. Few rows that all improve have an interval without 0, and still a large p."""
WIDE_INTERVAL = 0.10
"""Half the width of a 95 % interval, as a share of the value, above which the test set is called small."""


@dataclass(frozen=True)
class DataCounts:
    """What the audit counted. `overlap`: split -> its rows that also stand in training; `rows`: split -> all its rows."""

    rows: Mapping[str, int]
    sources_cut: Mapping[str, int] = field(default_factory=dict)
    duplicates: int = 0
    overlap: Mapping[str, int] = field(default_factory=dict)


def diagnose(
    train_rows: Sequence[Row],
    validation_rows: Sequence[Row],
    metrics: Mapping[str, Metric],
    paired: Mapping[str, Difference],
    baselines: Mapping[str, Mapping[str, Metric]],
    predictions: Sequence[Row],
    counts: DataCounts,
) -> list[Finding]:
    """Return everything there is to say, the worst first. Any of the inputs may be empty: an evaluation has no training rows."""
    findings = [
        *of_training(train_rows, validation_rows),
        *of_gain(metrics, paired),
        *of_baselines(metrics, baselines),
        *of_size(metrics),
        *outputs.diagnose(predictions),
        *of_data(counts),
    ]
    return sorted(findings, key=lambda finding: ("bad", "warn", "ok").index(finding.level))


def of_training(train_rows: Sequence[Row], validation_rows: Sequence[Row]) -> list[Finding]:
    """Over-fitting, divergence, under-training, from the losses on the validation rows."""
    points = [(row["step"], row["loss"]) for row in validation_rows if row.get("loss") is not None]
    if len(points) < 2:
        return []
    best_step, best = min(points, key=lambda point: point[1])
    last_step, last = points[-1]
    previous_step, previous = points[-2]
    if best_step == points[0][0] and last > best * (1 + CLEAR_CHANGE):
        text = (
            f"Validation loss never fell below its first value: {best:.3f} at step {best_step}, {last:.3f} at step {last_step}."
        )
        return [Finding("bad", f"{text} The learning rate is probably too high: lower optimizer.lr.")]
    if last > best * (1 + CLEAR_CHANGE):
        text = f"validation loss rose from {best:.3f} at step {best_step} to {last:.3f} at step {last_step}"
        then, now = _loss_around(train_rows, best_step), _loss_around(train_rows, last_step)
        if then is not None and now is not None and now < then:
            epochs = _epoch_at(train_rows, best_step)
            shorter = f"training.epochs={epochs:.2g}" if epochs else "fewer training.epochs"
            text += f", while training loss fell from {then:.3f} to {now:.3f}"
            return [Finding("warn", f"Over-fitting: {text}. Set training.patience=2 or {shorter}, or train on more rows.")]
        return [
            Finding(
                "warn", f"Unstable: {text}, and training loss did not fall either. Lower optimizer.lr or raise schedule.warmup."
            )
        ]
    # The fall from step 0, the untuned model, to a single validation says nothing about the end.
    if previous_step > 0 and best_step == last_step and last < previous * (1 - CLEAR_CHANGE):
        text = f"Validation loss was still falling at the end: {previous:.3f} at step {previous_step}, {last:.3f} at step {last_step}"
        return [Finding("warn", f"{text}. Train longer: raise training.epochs (or training.max_steps).")]
    fell = f"Validation loss fell from {points[0][1]:.3f} (step {points[0][0]}) to {best:.3f} (step {best_step})"
    return [Finding("ok", f"{fell} and was level at the end." if previous_step > 0 else f"{fell}.")]


def of_gain(metrics: Mapping[str, Metric], paired: Mapping[str, Difference]) -> list[Finding]:
    """Better, no different or worse than the untuned model, by the interval of the paired difference."""
    better, same, worse = [], [], []
    for name, change in paired.items():
        metric = metrics[name]
        if metric.higher_is_better is None:
            continue  # it describes outputs, and is no goal
        sign = 1 if metric.higher_is_better else -1
        interval = interval_text(change.low, change.high, metric.value)
        text = f"{name} by {score_text(change.difference, metric.value, sign=True)} {interval} to {score_text(metric.value)}"
        if change.low <= 0 <= change.high or change.p > UNLIKELY:
            same.append(text)
        elif sign * change.difference > 0:
            better.append(text)
        else:
            worse.append(text)
    findings = []
    if worse:
        text = f"Tuning made the model worse: {'; '.join(worse)}, and the 95 % interval excludes 0"
        findings.append(
            Finding("bad", f"{text}. Lower optimizer.lr or training.epochs, and check task.source and task.target.")
        )
    if same:
        text = f"No certain gain over the untuned model: {'; '.join(same)} (95 % interval with 0 in it, or p above {UNLIKELY})"
        findings.append(
            Finding("warn", f"{text}. Raise training.epochs or optimizer.lr, or score more rows (task.data.max_test).")
        )
    if better:
        findings.append(Finding("ok", f"Better than the untuned model: {'; '.join(better)} (paired bootstrap, 95 % interval)."))
    return findings


def of_baselines(metrics: Mapping[str, Metric], baselines: Mapping[str, Mapping[str, Metric]]) -> list[Finding]:
    """Scores that a trivial method reaches without any model."""
    findings = []
    for baseline, scores in baselines.items():
        lost = []
        for name, metric in metrics.items():
            trivial = scores[name].value if name in scores else None
            if trivial is None or metric.value is None or metric.higher_is_better is None:
                continue
            if (metric.value <= trivial) if metric.higher_is_better else (metric.value >= trivial):
                lost.append(f"{name} {score_text(metric.value)} against {score_text(trivial)}")
        if lost:
            text = f"Not better than the trivial baseline {baseline}: {'; '.join(lost)}"
            findings.append(Finding("warn", f"{text}. Raise training.epochs or optimizer.lr, or take a larger model.name."))
    return findings


def of_size(metrics: Mapping[str, Metric]) -> list[Finding]:
    """Whether the test set is large enough to tell models apart; the score with the widest interval speaks."""
    widest: tuple[float, str] = (WIDE_INTERVAL, "")
    for name, metric in metrics.items():
        if metric.higher_is_better is not None and metric.value and metric.low is not None and metric.high is not None:
            widest = max(widest, ((metric.high - metric.low) / 2 / abs(metric.value), name))
    share, name = widest
    if not name:
        return []
    metric = metrics[name]
    interval = interval_text(metric.low, metric.high, metric.value)
    # The width of an interval falls with the square root of the number of rows.
    needed = round(metric.n * (share / (WIDE_INTERVAL / 2)) ** 2, -1)
    rows = f"About {needed:,.0f} rows would bring it to ±{WIDE_INTERVAL / 2:.0%}" if share < 1 else "Many more rows are needed"
    text = f"Small test set: with n={metric.n}, {name} is {score_text(metric.value)} {interval}, that is ±{share:.0%}. {rows}"
    return [Finding("warn", f"{text}: raise task.data.max_test or name more rows in task.data.test.")]


def of_data(counts: DataCounts) -> list[Finding]:
    """Truncated sources, repeated rows, rows of the evaluation data that stand in training too."""
    findings = []
    for split, num_cut in counts.sources_cut.items():
        num_rows = counts.rows[split]
        if num_cut:
            share = num_cut / num_rows
            text = f"{num_cut:,} of {num_rows:,} sources in {split} ({share:.1%}) were longer than allowed and cut"
            many = share > CUT_SHARE
            todo = " Raise task.max_source_tokens, or cut the other end: task.truncation=start." if many else ""
            findings.append(Finding("warn" if many else "ok", f"{text}.{todo}"))
    if counts.duplicates:
        share = counts.duplicates / counts.rows["train"]
        text = f"{counts.duplicates:,} of {counts.rows['train']:,} training rows ({share:.1%}) are copies of another and weigh double"
        many = share > DUPLICATE_SHARE
        findings.append(Finding("warn" if many else "ok", f"{text}.{' Take them out of task.data.train.' if many else ''}"))
    for split, num_both in counts.overlap.items():
        if num_both:
            share = num_both / counts.rows[split]
            text = f"{num_both:,} of {counts.rows[split]:,} {split} rows ({share:.1%}) also stand in training, so their scores are memory"
            level = "bad" if share > OVERLAP_SHARE else "warn"
            findings.append(Finding(level, f"{text}. Take them out of task.data.train; data.json lists them."))
    return findings


def _loss_around(rows: Sequence[Row], step: int) -> float | None:
    """Mean training loss of the tenth of the run that ends at `step`, so that one batch does not decide."""
    span = max(1, rows[-1]["step"] // 10) if rows else 1
    losses = [row["loss"] for row in rows if step - span < row["step"] <= step and row["loss"] is not None]
    return sum(losses) / len(losses) if losses else None


def _epoch_at(rows: Sequence[Row], step: int) -> float | None:
    return next((row["epoch"] for row in rows if row["step"] >= step), None)

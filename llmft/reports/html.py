"""report.html: one page for people, complete in itself (no script, no network), and loss_curve.svg beside it."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from llmft.reports import charts, record, units
from llmft.reports.outputs import prediction_text, source_text
from llmft.reports.results import Results
from llmft.runs import durable

Row = Mapping[str, Any]

NUM_PREDICTIONS = 30
"""Rows of predictions shown; all of them are in predictions/."""


def write_report(
    folder: Path,
    results: Results,
    config: Mapping[str, Any],
    plan: Mapping[str, Any],
    predictions: Sequence[Row],
    untuned: Sequence[Row],
    commands: Sequence[str],
) -> None:
    """Write report.html and, where `folder` has a metrics.jsonl with training rows, loss_curve.svg.

    `config`: the resolved values of config.yaml; `untuned`: the untuned model's predictions, empty if there are none;
    `commands`: how to repeat the run and go on from it.
    """
    train_rows, validation_rows = record.read(folder / "metrics.jsonl")
    page = render(results, config, plan, train_rows, validation_rows, predictions, untuned, commands)
    durable.write_text(folder / "report.html", _encodable(page))
    if loss := loss_curve(results, train_rows, validation_rows):
        durable.write_text(folder / "loss_curve.svg", charts.standalone(loss))


def render(
    results: Results,
    config: Mapping[str, Any],
    plan: Mapping[str, Any],
    train_rows: Sequence[Row],
    validation_rows: Sequence[Row],
    predictions: Sequence[Row],
    untuned: Sequence[Row],
    commands: Sequence[str],
) -> str:
    """Return the page. Every value from outside is escaped by the template; only the charts, escaped by us, go in as they are."""
    before = {row["id"]: prediction_text(row) for row in untuned}
    shown = [
        {
            **row,
            "source": source_text(row["source"]),
            "prediction": prediction_text(row),
            "before": before.get(row["id"]),
            "cut": "finish_reason" in row and row["finish_reason"] == "length",
        }
        for row in predictions[:NUM_PREDICTIONS]
    ]
    style = charts.STYLE + Markup(Path(__file__).with_name("report.css").read_text(encoding="utf-8"))
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            results=results,
            style=style,
            style_hash=f"sha256-{b64encode(sha256(style.encode()).digest()).decode()}",
            tiles=_tiles(results),
            intervals=_intervals(results),
            curves=_curves(results, train_rows, validation_rows),
            plan=list(_flat(plan)),
            predictions=shown,
            num_predictions=len(predictions),
            has_before=bool(before),
            settings=yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=120),
            commands=commands,
        )
    )


def loss_curve(results: Results, train_rows: Sequence[Row], validation_rows: Sequence[Row]) -> Markup | None:
    """Draw the training and the validation loss; None without training rows."""
    series = {"training": _points(train_rows, "loss"), "validation": _points(validation_rows, "loss")}
    if not series["training"]:
        return None
    best = results.train.best_step if results.train else None
    unit = results.train.loss_unit.removesuffix("s") if results.train else "token"
    return charts.line_chart(f"Loss per {unit}, by step", series, mark=None if best is None else (best, "best"))


def _curves(results: Results, train_rows: Sequence[Row], validation_rows: Sequence[Row]) -> list[Markup]:
    loss = loss_curve(results, train_rows, validation_rows)
    if loss is None:
        return []
    speed = [(row["step"], row["tokens"] / row["seconds"]) for row in train_rows if row["tokens"] and row["seconds"]]
    others = [
        ("Learning rate", _points(train_rows, "lr"), False),
        ("Gradient norm before clipping", _points(train_rows, "grad_norm"), True),
        ("Tokens per second", speed, False),
    ]
    return [loss, *(charts.line_chart(title, {title: points}, log) for title, points, log in others if points)]


def _points(rows: Sequence[Row], key: str) -> list[charts.Point]:
    return [(row["step"], row[key]) for row in rows if row.get(key) is not None]


def _intervals(results: Results) -> Markup | None:
    """Scores with an interval; a loss or a perplexity without one has another scale and stands in the table only."""
    before = results.before or {}
    rows = [
        charts.Interval(name, metric.value, metric.low, metric.high, before[name].value if name in before else None)
        for name, metric in results.metrics.items()
        if metric.value is not None and metric.low is not None
    ]
    title = "Score with its 95 % interval" + ("; hollow: before tuning" if before else "")
    return charts.interval_chart(title, rows) if rows else None


def _tiles(results: Results) -> list[tuple[str, str, str]]:
    """Name, value, remark: the few numbers that one looks for first."""
    tiles = []
    name = results.objective.name if results.objective else next(iter(results.metrics), "")
    if name in results.metrics:
        before = results.before.get(name) if results.before else None
        value = results.metrics[name].value
        tiles.append(
            (name, units.score_text(value), f"before tuning: {units.score_text(before.value, value)}" if before else "")
        )
    train = results.train
    if train:
        remark = f"best at step {train.best_step:,}" if train.best_step is not None else ""
        if train.validation_loss is not None:
            tiles.append(("validation loss", units.score_text(train.validation_loss), remark))
        tiles.append(
            ("training", units.duration_text(train.seconds), f"{train.steps:,} steps, {units.count_text(train.epochs)} epochs")
        )
        tiles.append(
            (
                "tokens/s",
                units.count_text(round(train.tokens_per_second)),
                f"{train.tokens:,} tokens, loss on {train.loss_units:,} {train.loss_unit}",
            )
        )
    if "peak_bytes" in results.memory:
        tiles.append(("peak memory", units.memory_text(results.memory["peak_bytes"]), ""))
    tiles.append(("scored", f"{results.n:,}", f"rows of {results.split}"))
    return tiles


def _flat(entries: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Name and text of every entry; nested ones carry the names above them."""
    rows = []
    for key, value in entries.items():
        name = f"{above}{units.entry_name(key)}"
        rows += _flat(value, f"{name}: ") if isinstance(value, Mapping) else [(name, units.entry_text(key, value))]
    return rows


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("llmft.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (units.score_text, units.interval_text, units.p_text, units.duration_text, units.count_text):
        environment.filters[function.__name__] = function
    return environment


def _encodable(text: str) -> str:
    """Half a surrogate pair, which a JSON file may hold, cannot be written as UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")

"""llmft predict: inputs to predictions, in order, on disk as they are made, going on where it stopped."""

import csv
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Any

from llmft.config.dump import to_values
from llmft.config.schema import PredictRun, TextBy
from llmft.config.shown import visible
from llmft.data.example import Example, Prediction
from llmft.data.row import BadRow, Row
from llmft.data.row_function import apply_row, source_of
from llmft.data.source import kind_of, layout_of, read, scan_stream
from llmft.errors import ConfigError, DataError
from llmft.hardware import heap
from llmft.reports.console import say
from llmft.runs import durable, signals
from llmft.runs.directory import resolve
from llmft.runs.provenance import fingerprint, hash_file
from llmft.tasks.answers import predict_examples
from llmft.tasks.formulation import Formulation, Learner
from llmft.tasks.open import open_task, weights_mark

ENDINGS = (".jsonl", ".csv", ".txt")
FORMULA = re.compile(r"[\t\r\n]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
"""How a formula begins, also in full-width characters (OWASP, CSV injection)."""
NUMBER = re.compile(r"[+-]?(\d+([.,]\d+)*|[.,]\d+)([eE][+-]?\d+)? ?%?")


def predict(run: PredictRun, command: list[str]) -> None:
    """Read run.input, write run.output. Raises ConfigError for a file type it does not know or an output that exists."""
    folder = resolve(run.run, run.output_root) if run.run else None
    source, output = (None if name == "-" else Path(name) for name in (run.input, output_name(run, folder)))
    if source and not source.is_file():
        raise DataError(f"input={run.input}: there is no such file")
    if output and output.suffix not in ENDINGS:
        raise ConfigError(
            f"output={output}: unknown ending {output.suffix!r}; use one of {', '.join(ENDINGS)}, or - for stdout"
        )
    if output and output.exists():
        raise ConfigError(f"output={output}: the file is there already; name another one, or delete it")
    learner = open_task(run, folder)
    formulation = learner.formulation
    layout = replace(layout_of(run.task.data), text_by=TextBy.line)
    if source is None:
        stdin = BufferedReader(sys.stdin.buffer)  # type: ignore[type-var]  # one that can look ahead
        kind = ".jsonl" if stdin.peek(1).lstrip()[:1] == b"{" else ".txt"
        rows, total = checked(scan_stream(stdin, "stdin", kind, layout, every_line=True)), 0
    else:
        kind = kind_of(source) or source.suffix
        rows, total = read(source, layout, every_line=True), 0
    if kind == ".txt" and not layout.columns:
        rows = as_columns(rows, formulation.columns)
    elif formulation.bound.row is not None:
        rows = apply_row(rows, formulation.bound.row)
    if source is not None:
        inputs = list(rows)
        rows, total = iter(inputs), len(inputs)
    examples = formulation.inputs(rows)
    if output is None:
        for prediction in stream(learner, examples):
            row = as_row(formulation, prediction)
            line = json.dumps(row, ensure_ascii=False) if kind == ".jsonl" else one_line(row["prediction"])
            print(visible(line) if sys.stdout.isatty() else line, flush=True)  # a model may have learnt to command terminals
        return
    partial = partial_of(run, folder, source, output, learner)
    if source is None:
        durable.unlink(partial)  # nobody knows whether stdin brings the same texts again
    found = [as_row(formulation, each) for each in predict_examples(learner, examples, partial, total, "predicting")]
    text = rendered(found, output.suffix)
    signals.close()  # a command that was stopped here could not be repeated: its output would be there
    durable.write_text(output, text)
    durable.unlink(partial)
    say(f"{len(found)} predictions: {output}")
    if output.suffix == ".csv" and (num := sum(computes(value) for row in found for value in row.values())):
        say(
            f"{num} cells that a spreadsheet would take for a formula begin with ' there; output=NAME.jsonl has them as they are"
        )


def output_name(run: PredictRun, folder: Path | None) -> str:
    """Where the predictions go."""
    if run.output:
        return run.output
    if run.input == "-":
        return "-"
    if folder is None:
        raise ConfigError("output is needed with a plain model: output=predictions.jsonl")
    return str(folder / "predict" / f"{datetime.now():%Y%m%d-%H%M%S}" / "predictions.jsonl")


def partial_of(run: PredictRun, folder: Path | None, source: Path | None, output: Path, learner: Learner) -> Path:
    """Where unfinished predictions wait: beside the output, under a name that the same inputs, settings and weights find again."""
    settings = to_values(run)
    key = fingerprint(
        source=hash_file(source) if source else None,
        model=str(learner.pretrained.folder),
        weights=weights_mark(folder),
        settings={name: settings[name] for name in ("task", "generation", "plugins", "seed")},
        row=source_of(learner.formulation.bound.row) if learner.formulation.bound.row else None,
    )
    return output.with_name(f".{output.name}.{key}.partial")


def checked(rows: Iterable[Row | BadRow]) -> Iterator[Row]:
    """Pass rows on. Raises DataError for one that cannot be read."""
    for row in rows:
        if isinstance(row, BadRow):
            raise DataError(f"{row.where}: {row.reason}")
        yield row


def as_columns(rows: Iterable[Row], columns: Sequence[str]) -> Iterator[Row]:
    """Give each line of a text to the one column that an input needs. Raises ConfigError if it needs several."""
    if len(columns) != 1:
        raise ConfigError(
            f"task.source reads the columns {', '.join(columns)}; a text file has one text a line. Use a jsonl or csv file."
        )
    for row in rows:
        yield Row({columns[0]: row.fields["text"]}, row.where)


def stream(learner: Learner, examples: Iterable[Example]) -> Iterator[Prediction]:
    """Predict batch by batch, so that the first answers come before the last question."""
    heap.settle()
    examples = iter(examples)
    while batch := list(islice(examples, learner.generation.batch_size)):
        found = dict(learner.predict(batch))
        yield from (found[place] for place in range(len(batch)))


def rendered(rows: Sequence[dict[str, Any]], suffix: str) -> str:
    """Write predictions as JSON lines, as CSV with a header, or as one text a line."""
    if suffix == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if suffix == ".txt":
        return "".join(one_line(row["prediction"]) + "\n" for row in rows)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else ["id", "prediction"])
    writer.writeheader()
    writer.writerows({name: cell(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def as_row(formulation: Formulation, prediction: Prediction) -> dict[str, Any]:
    """Return a prediction's columns."""
    return {"id": prediction.id} | formulation.to_row(prediction)


def cell(value: Any) -> Any:
    """Return what a CSV cell can hold: lists and objects as JSON, a text that a spreadsheet would compute behind a '."""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return f"'{value}" if computes(value) else value


def computes(value: Any) -> bool:
    """Whether a spreadsheet would take a text for a formula, which may call programs and send what other cells hold."""
    return isinstance(value, str) and bool(FORMULA.match(value)) and not NUMBER.fullmatch(value)


def one_line(value: Any) -> str:
    """Put a prediction on one line, where a line is a prediction."""
    return " ".join(value.split()) if isinstance(value, str) else str(cell(value))

"""The table at the end of a sweep, on stderr: what differed between the jobs, how each ended, what it scored."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmft.config.shown import shown
from llmft.reports.units import MISSING, score_text
from llmft.sweep.rows import Row, best

GAP = 2
"""Blank columns between two columns."""
PLAIN_WIDTH = 10_000
"""Where stderr is no terminal, nothing is wrapped or left out."""

Column = tuple[str, list[str]]
"""Head and one cell per row."""


def show(sweep_dir: Path, rows: Sequence[Row]) -> None:
    """Print the table. On a terminal, scores that do not fit beside the others are left out; sweep.json has them all."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    varied, constant = _settings(rows)
    winner = best(rows)
    number = [f"{row.number:03d}{' *' if row is winner else ''}" for row in rows]
    state = [row.state for row in rows]
    code = [MISSING if row.exit is None else str(row.exit) for row in rows]
    columns: list[Column] = [("job", number), *varied, ("state", state), ("exit", code)]
    scores = _scores(rows)
    while scores and _width([*columns, *scores]) > console.width and len(scores) > 1:
        scores.pop()

    _say(console, f"\nsweep {sweep_dir}: {sum(row.exit == 0 for row in rows)} of {len(rows)} jobs done")
    if constant:
        _say(console, f"all jobs: {' '.join(constant)}")
    console.print(_table(columns, scores, rows, winner))
    for row in rows:
        if row.error:
            _say(console, f"{row.number:03d}: {row.error.splitlines()[0]}")
    if winner is not None and winner.objective is not None:
        better = "higher" if winner.objective.higher_is_better else "lower"
        value = score_text(winner.objective.value)
        _say(console, f"* best: {winner.objective.name} {value} ({better} is better), {winner.output_dir}")
    if any(row.exit != 0 for row in rows):
        _say(console, "the same command again runs what did not end with 0")


def _settings(rows: Sequence[Row]) -> tuple[list[Column], list[str]]:
    """The settings that differ between jobs, one column each, and the overrides that all jobs share."""
    values = [dict(override.split("=", 1) for override in row.overrides if "=" in override) for row in rows]
    keys = list(dict.fromkeys(key for job in values for key in job))
    varied = [key for key in keys if len({job.get(key) for job in values}) > 1]
    constant = [f"{key}={values[0][key]}" for key in keys if key not in varied]
    last = [key.rpartition(".")[2] for key in varied]
    # The last word of a key says enough where no other key ends in it.
    heads = [word if last.count(word) == 1 else key for key, word in zip(varied, last, strict=True)]
    return [(head, [_short(job.get(key, "")) for job in values]) for key, head in zip(varied, heads, strict=True)], constant


def _scores(rows: Sequence[Row]) -> list[Column]:
    """What the jobs are judged by, then the other scores."""
    judged = list(dict.fromkeys(row.objective.name for row in rows if row.objective))
    columns = []
    for name in dict.fromkeys(judged + [name for row in rows for name in row.metrics]):
        cells = []
        for row in rows:
            if row.objective and row.objective.name == name:
                cells.append(score_text(row.objective.value))
            else:
                cells.append(score_text(row.metrics.get(name)))
        columns.append((name, cells))
    return columns


def _table(columns: list[Column], scores: list[Column], rows: Sequence[Row], winner: Row | None) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for head, _ in columns:
        table.add_column(_text(head), overflow="fold")
    for head, _ in scores:
        table.add_column(_text(head), justify="right", overflow="fold")
    for index, row in enumerate(rows):
        style = "bold green" if row is winner else None if row.exit == 0 else "red"
        table.add_row(*(_text(cells[index]) for _, cells in [*columns, *scores]), style=style)
    return table


def _width(columns: list[Column]) -> int:
    return sum(max(len(text) for text in [head, *cells]) + GAP for head, cells in columns)


def _short(value: str) -> str:
    """A drawn number with four digits (0.00031622776601683794 as 0.0003162), a text without the quotes that Hydra puts."""
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    try:
        return f"{float(value):.4g}" if len(value) > 8 and not value.isdigit() else value
    except ValueError:
        return value


def _say(console: Console, text: str) -> None:
    console.print(_text(text), soft_wrap=True)


def _text(text: str) -> Text:
    """What files say, without power over the terminal."""
    return Text(shown(text))

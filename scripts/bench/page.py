"""Writes what was measured into a page, between two markers: tables, and charts of how costs grow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.bench import charts
from scripts.bench.measured import Measured, by_setting, find_fastest, ratios, spread
from scripts.bench.works import Contestant, Kind, Work

BEGIN, END = "<!-- measured by make bench -->", "<!-- end of what make bench measured -->"
UNITS = {Kind.label: "texts/s", Kind.generation: "new tokens/s"}
MIB, GIGA = 1 << 20, 1e9
Table = list[list[str]]


@dataclass(frozen=True)
class Played:
    """The runs of one contestant: its turns, and those that chose its setting."""

    contestant: Contestant
    turns: list[Measured]
    tunings: list[Measured]


@dataclass(frozen=True)
class Facts:
    """What was measured on, with what, when."""

    versions: Mapping[str, Any]
    date: str
    bf16: bool
    ceilings: Mapping[str, float]

    def text(self) -> str:
        """Return a paragraph."""
        packages, trl = self.versions["packages"], self.versions["trl"]
        named = [f"{name} {packages[name]}" for name in ("torch", "transformers", "peft", "accelerate") if name in packages]
        named += [f"TRL {trl['trl']}"] if trl else []
        kinds = " and ".join(f"{value / GIGA:,.0f} GFLOP/s in {name}" for name, value in self.ceilings.items())
        bf16 = "computes in bf16" if self.bf16 else "does not compute in bf16, so that fp32 is everybody's fastest format"
        return (
            f"{self.date}, {self.versions['cpu']}, {self.versions['cores']} cores, Python {self.versions['python']}, "
            f"{', '.join(named)}. The processor {bf16}; its matrix products reach {kinds}."
        )


def markdown(rows: Table) -> str:
    """Return a table whose first row is its head; all columns but the first are figures."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" + "|---:" * (len(rows[0]) - 1) + "|", *lines[1:]])


def turns_table(work: Work, played: Sequence[Played]) -> str:
    """Return the table of a work: llmft first, then the others with how much faster and smaller llmft is."""
    generation = work.kind is Kind.generation
    head = [
        "",
        UNITS.get(work.kind, "loss-bearing tokens/s"),
        "llmft is faster by",
        "CPU s",
        "llmft needs",
        "peak MiB",
        "llmft needs",
    ]
    head += ["same texts"] if generation else ["first step done, s", "llmft needs", "of the ceiling", "loss of the last step"]
    table, ours = [head], played[0].turns
    for each in played:
        turns = each.turns
        if not turns:
            continue
        faster = ratios(ours, turns, lambda run: run.per_second) if turns is not ours else None
        smaller = ratios(ours, turns, lambda run: run.peak_bytes) if turns is not ours else None
        cheaper = ratios(ours, turns, lambda run: run.step_cpu) if turns is not ours else None
        sooner = ratios(ours, turns, lambda run: run.startup) if turns is not ours else None
        row = [
            each.contestant.name + (f" ({turns[0].tuning})" if turns[0].tuning else ""),
            spread(run.per_second for run in turns).text(1),
            faster.text() + " x" if faster else "",
            f"{spread(run.step_cpu for run in turns).median:,.1f}",
            f"{cheaper.median:.2f} x" if cheaper else "",
            f"{spread(run.peak_bytes / MIB for run in turns).median:,.0f}",
            f"{smaller.median:.2f} x" if smaller else "",
        ]
        if generation:
            reference = played[1].turns
            row.append(f"{100 * same(turns[0].texts, reference[0].texts):.0f} %" if reference else "")
        else:
            row.append(spread(run.startup for run in turns).text(1))
            row.append(f"{sooner.median:.2f} x" if sooner else "")
            row.append(f"{100 * spread(run.flops / run.ceiling for run in turns).median:.0f} %")
            row.append("other rows" if "grouped" in turns[0].tuning else f"{turns[0].losses[-1]:.5f}")
        table.append(row)
    return markdown(table)


def same(texts: Sequence[str], others: Sequence[str]) -> float:
    """Return the share of texts that are alike."""
    return sum(a == b for a, b in zip(texts, others, strict=True)) / len(texts)


def tunings_table(played: Sequence[Played]) -> str:
    """Return what was tried for each peer, the chosen setting in bold; nothing where nothing was."""
    table: Table = [["tried", "micro-batch x accumulation", "runs", "per second", "peak MiB", "tokens among positions"]]
    for each in played:
        tried = by_setting(each.tunings)
        for setting, runs in tried.items():
            failed = next((run.failed for run in runs if run.failed), None)
            peak = spread(run.peak_bytes / MIB for run in runs).median
            share = "" if runs[0].tokens_share is None else f"{100 * runs[0].tokens_share:.0f} %"
            figures = [spread(run.per_second for run in runs).text(1), f"{peak:,.0f}", share]
            row = [each.contestant.name, setting, str(len(runs)), *([failed, "", ""] if failed else figures)]
            table.append([f"**{cell}**" if cell else "" for cell in row] if setting == find_fastest(tried) else row)
    return markdown(table) if len(table) > 1 else ""


def section(work: Work, played: Sequence[Played]) -> str:
    """Return the part of the page on one work."""
    runs = [run for each in played for run in each.turns]
    taken = 100 * max(run.foreign_share for run in runs)
    rounds = min(len(each.turns) for each in played if each.turns)
    note = f"{rounds} round{'s' * (rounds != 1)}; others took at most {taken:.0f} % of the machine."
    parts = [f"### {work.title}", turns_table(work, played), note, tunings_table(played)]
    return "\n\n".join(part for part in parts if part)


def rows_table(grown: Mapping[Work, Sequence[Played]]) -> str:
    """Return what files of many rows take, none of them tokenised yet; nothing where none was measured."""
    table: Table = [["rows of the training file", "first step done, s", "CPU s", "peak MiB"]]
    for work, (ours, *_) in grown.items():
        if work.num_rows and ours.turns:
            figures = [lambda run: run.startup, lambda run: run.cpu, lambda run: run.peak_bytes / MIB]
            table.append([f"{work.num_rows:,}", *(spread(map(figure, ours.turns)).text(0) for figure in figures)])
    return markdown(table) if len(table) > 1 else ""


def between_markers(page: str, text: str) -> str:
    """Return the page with `text` in the place of what stands between the markers. Raises ValueError where they are not."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def write(page: Path, facts: Facts, found: Mapping[Work, Sequence[Played]], grown: Mapping[Work, Sequence[Played]]) -> None:
    """Write facts and sections into the page, and the chart beside it."""
    parts = [facts.text()]
    parts += [section(work, played) for work, played in found.items() if played[0].turns]
    drawn = charts.growth({work: {each.contestant.name: each.turns for each in played} for work, played in grown.items()})
    if drawn:
        picture = page.with_name(f"{page.stem}-growth.svg")
        picture.write_text(drawn, encoding="utf-8")
        parts.append(
            f"### How costs grow\n\n![Seconds per step by length, batch and model; start and memory by rows]({picture.name})"
        )
    page.write_text(between_markers(page.read_text(encoding="utf-8"), "\n\n".join(filter(None, parts))), encoding="utf-8")

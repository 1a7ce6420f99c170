"""Charts as SVG text, drawn by hand so that a report needs no script, no font and no network."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from llmft.reports.units import interval_text, score_text

Point = tuple[float, float]

WIDTH, HEIGHT = 480, 230
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 46, 26
DIGIT = 7  # width of one, with something to spare
MAX_POINTS = 300
"""Longer series are averaged down to this many points: more than a line of this width can show."""

STYLE = Markup("""
:root{--ink:#1d2433;--muted:#5b6475;--paper:#ffffff;--grid:#e3e7ee;--first:#2159d6;--second:#c2570c;--mark:#b3261e}
@media (prefers-color-scheme:dark){:root{--ink:#e7eaf1;--muted:#9aa5b8;--paper:#14171d;--grid:#2c3340;--first:#7fa7ff;--second:#f5a25a;--mark:#ff8a80}}
svg text{font:11px system-ui,sans-serif;fill:var(--muted)}svg .title{font-size:13px;font-weight:600;fill:var(--ink)}
svg .value{fill:var(--ink)}svg .grid{stroke:var(--grid)}svg .mark{stroke:var(--mark);stroke-dasharray:3 3}
svg .line{fill:none;stroke-width:1.7;stroke-linejoin:round}svg .line0{stroke:var(--first)}svg .line1{stroke:var(--second)}
svg .dot0{fill:var(--first)}svg .dot1{fill:var(--second)}svg .span{stroke:var(--first);stroke-width:6;opacity:.3}
svg .hollow{fill:var(--paper);stroke:var(--muted);stroke-width:1.5}
""")


@dataclass(frozen=True)
class Interval:
    """One row of an interval chart; `before` is the untuned model's value."""

    name: str
    value: float
    low: float | None
    high: float | None
    before: float | None = None


def line_chart(
    title: str, series: Mapping[str, Sequence[Point]], log: bool = False, mark: tuple[float, str] | None = None
) -> Markup:
    """Draw up to two series over steps; `log`: logarithmic heights, where all are above 0; `mark`: a step to point out, and its name."""
    lines = {name: _thinned(points) for name, points in series.items() if points}
    assert lines, title
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points]
    log = log and min(ys) > 0
    heights = _log_ticks(min(ys), max(ys)) if log else _ticks(min(ys), max(ys), 4)
    bend: Callable[[float], float] = math.log10 if log else float
    bottom, top = bend(min(heights[0], *ys)), bend(max(heights[-1], *ys))
    first, last = min(xs), max(xs)

    def across(x: float) -> float:
        return LEFT + (x - first) / ((last - first) or 1) * (WIDTH - LEFT - RIGHT)

    def down(y: float) -> float:
        return TOP + (top - bend(y)) / ((top - bottom) or 1) * (HEIGHT - TOP - BOTTOM)

    parts = [_open(HEIGHT, title)]
    for y in heights:
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, WIDTH - RIGHT, down(y), down(y))
        )
        parts.append(Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(LEFT - 6, down(y) + 4, _tick_text(y)))
    for x in (tick for tick in _ticks(first, last, 5) if first <= tick <= last and tick.is_integer()):
        label = f"{x:,.0f}"
        middle = across(x) + DIGIT * len(label) / 2 <= WIDTH  # else it would be cut at the right edge
        where = (across(x), HEIGHT - 8, "middle") if middle else (WIDTH, HEIGHT - 8, "end")
        parts.append(Markup('<text x="{:.1f}" y="{}" text-anchor="{}">{}</text>').format(*where, label))
    if mark:
        parts.append(
            Markup('<line class="mark" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>').format(
                across(mark[0]), TOP, HEIGHT - BOTTOM
            )
        )
        anchor, shift = ("end", -4) if across(mark[0]) > WIDTH / 2 else ("start", 4)
        place = (across(mark[0]) + shift, TOP + 10, anchor, mark[1])
        parts.append(Markup('<text x="{:.1f}" y="{}" text-anchor="{}">{}</text>').format(*place))
    for number, (name, points) in enumerate(lines.items()):
        path = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in points)
        parts.append(Markup('<polyline class="line line{}" points="{}"/>').format(number, path))
        # Few points stand far apart: show each, with its numbers under the pointer.
        for x, y in points if len(points) <= 40 else ():
            dot = Markup(
                '<circle class="dot{}" cx="{:.1f}" cy="{:.1f}" r="2.5"><title>{} {:.4g} at step {:,.0f}</title></circle>'
            )
            parts.append(dot.format(number, across(x), down(y), name, y, x))
        if len(lines) > 1:
            left = LEFT + 110 * number
            parts.append(Markup('<rect class="dot{}" x="{}" y="{}" width="14" height="3"/>').format(number, left, TOP - 16))
            parts.append(Markup('<text x="{}" y="{}">{}</text>').format(left + 19, TOP - 11, name))
    return _close(parts)


def interval_chart(title: str, rows: Sequence[Interval]) -> Markup:
    """Draw one row per score: the value, its interval as a bar, the untuned model as a hollow circle."""
    width, left, right, height = 2 * WIDTH, 130, 190, 44 + 28 * len(rows)
    numbers = [number for row in rows for number in (row.value, row.low, row.high, row.before) if number is not None]
    ticks = _ticks(min(0.0, *numbers), max(0.0, *numbers), 5)
    first, last = min(ticks[0], *numbers), max(ticks[-1], *numbers)

    def across(x: float) -> float:
        return left + (x - first) / ((last - first) or 1) * (width - left - right)

    parts = [_open(height + 20, title, width)]
    for tick in ticks:
        parts.append(Markup('<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="30" y2="{1}"/>').format(across(tick), height))
        parts.append(
            Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(across(tick), height + 14, _tick_text(tick))
        )
    for number, row in enumerate(rows):
        y = 48 + 28 * number
        parts.append(Markup('<text class="value" x="{}" y="{}" text-anchor="end">{}</text>').format(left - 12, y + 4, row.name))
        if row.low is not None and row.high is not None:
            span = (across(row.low), across(row.high), y, y)
            parts.append(Markup('<line class="span" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(*span))
        if row.before is not None:
            hollow = Markup('<circle class="hollow" cx="{:.1f}" cy="{}" r="4"><title>before tuning: {}</title></circle>')
            parts.append(hollow.format(across(row.before), y, score_text(row.before)))
        parts.append(Markup('<circle class="dot0" cx="{:.1f}" cy="{}" r="4.5"/>').format(across(row.value), y))
        value = f"{score_text(row.value)} {interval_text(row.low, row.high, row.value)}"
        parts.append(Markup('<text class="value" x="{}" y="{}" text-anchor="end">{}</text>').format(width - 8, y + 4, value))
    return _close(parts)


def standalone(chart: Markup) -> str:
    """The same chart as a file of its own, with its style and a background."""
    style = Markup("<style>{}</style>").format(STYLE) + Markup('<rect width="100%" height="100%" fill="var(--paper)"/>')
    head, rest = chart.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg">{style}{rest}\n'


def _open(height: int, title: str, width: int = WIDTH) -> Markup:
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(width, height, title)
    return head + Markup('<text class="title" x="8" y="18">{}</text>').format(title)


def _close(parts: Sequence[Markup]) -> Markup:
    return Markup("").join(parts) + Markup("</svg>")


def _thinned(points: Sequence[Point]) -> list[Point]:
    size = math.ceil(len(points) / MAX_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], math.fsum(y for _, y in group) / len(group)) for group in groups]


def _ticks(low: float, high: float, wanted: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from just below `low` to just above `high`."""
    if high <= low:
        high = low + (abs(low) or 1.0) * 0.1
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    gap = next(step * power for step in (1, 2, 5, 10) if step * power >= rough * 0.999)
    start, end = math.floor(low / gap + 1e-9), math.ceil(high / gap - 1e-9)
    return [float(f"{number * gap:.10g}") for number in range(start, end + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, with 2 and 5 between them where there are few."""
    start, end = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if end - start <= 2 else (1,)
    ticks = [step * 10.0**power for power in range(start, end + 1) for step in steps]
    inside = [tick for tick in ticks if low * 0.5 <= tick <= high * 2]
    return inside or [low, high]


def _tick_text(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if 0 < abs(value) < 0.01:
        digits, power = f"{value:.1e}".split("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{value:.3g}"

"""How costs grow with length, batch, model and rows: five charts in one picture."""

from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup

from llmft.reports.charts import HEIGHT, STYLE, WIDTH, Point, line_chart
from scripts.bench.measured import Measured, spread
from scripts.bench.works import Work

Runs = Mapping[str, Sequence[Measured]]
Figure = Callable[[Work, Measured], float]


def seconds_per_step(work: Work, run: Measured) -> float:
    """The first step is not among those that were timed."""
    return run.seconds / (work.steps - 1)


CHARTS: tuple[tuple[str, str, Figure], ...] = (
    ("length", "Seconds per step by words of a document, batch of 8", seconds_per_step),
    ("batch", "Seconds per step by rows of a step", seconds_per_step),
    ("model", "Seconds per step by width of a 4-layer Llama", seconds_per_step),
    ("rows", "Seconds to the end of the first step by rows, nothing cached", lambda work, run: run.startup),
    ("rows", "Peak memory in MiB by rows", lambda work, run: run.peak_bytes / (1 << 20)),
)
"""First part of the works' names, the second is the size; title; what is drawn."""


def lines(axis: str, found: Mapping[Work, Runs], figure: Figure) -> dict[str, list[Point]]:
    """Return a line per contestant over the sizes of an axis: medians."""
    drawn: dict[str, list[Point]] = {}
    for work, runs in found.items():
        name, _, size = work.name.partition("-")
        for contestant, turns in runs.items():
            if name == axis and turns:
                drawn.setdefault(contestant, []).append((float(size), spread(figure(work, run) for run in turns).median))
    return {contestant: sorted(points) for contestant, points in drawn.items()}


def growth(found: Mapping[Work, Runs]) -> str:
    """Return the picture as SVG, two charts in a row; empty where nothing was measured."""
    drawn = [line_chart(title, series) for axis, title, figure in CHARTS if (series := lines(axis, found, figure))]
    if not drawn:
        return ""
    height = HEIGHT * ((len(drawn) + 1) // 2)
    parts = [
        Markup('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" role="img">').format(2 * WIDTH, height),
        Markup('<style>{}</style><rect width="100%" height="100%" fill="var(--paper)"/>').format(STYLE),
    ]
    for place, chart in enumerate(drawn):
        across, down = place % 2 * WIDTH, place // 2 * HEIGHT
        place_of = Markup('<svg x="{}" y="{}" width="{}" height="{}" ').format(across, down, WIDTH, HEIGHT)
        # the charts of reports are over steps, and say so where the pointer rests
        parts.append(place_of + chart.removeprefix("<svg ").replace(" at step ", " at "))
    return str(Markup("\n").join([*parts, Markup("</svg>\n")]))

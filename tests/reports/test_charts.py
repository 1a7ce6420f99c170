import re
from xml.etree import ElementTree

import pytest

from llmft.reports import charts
from llmft.reports.charts import Interval


def texts(chart):
    return [element.text for element in ElementTree.fromstring(chart).iter("text")]


def line(chart, number=0):
    (polyline,) = [each for each in ElementTree.fromstring(chart).iter("polyline") if each.get("class") == f"line line{number}"]
    return [tuple(map(float, pair.split(","))) for pair in polyline.get("points").split()]


def test_a_line_goes_from_edge_to_edge_of_its_axes():
    points = line(charts.line_chart("t", {"loss": [(0, 4.0), (50, 2.0), (100, 0.0)]}))
    # x: from LEFT=56 to WIDTH-RIGHT=466; y: from TOP=46 (the tick 4) to HEIGHT-BOTTOM=204 (the tick 0).
    assert points == [(56.0, 46.0), (261.0, 125.0), (466.0, 204.0)]


def test_long_numbers_are_not_cut_at_the_edge():
    chart = ElementTree.fromstring(charts.line_chart("t", {"rows": [(0, 1.0), (1_000_000, 2.0)]}))
    (last,) = [each for each in chart.iter("text") if each.text == "1,000,000"]
    (first,) = [each for each in chart.iter("text") if each.text == "0" and float(each.get("y")) > 204]
    assert (last.get("text-anchor"), float(last.get("x"))) == ("end", charts.WIDTH)
    assert first.get("text-anchor") == "middle"


def test_logarithmic_heights():
    points = line(charts.line_chart("t", {"norm": [(1, 100.0), (2, 10.0), (3, 1.0)]}, log=True))
    assert points[1][1] == pytest.approx((points[0][1] + points[2][1]) / 2, abs=0.11)


def test_two_series_have_a_legend_and_the_mark_a_name():
    chart = charts.line_chart("Loss", {"training": [(1, 2.0), (9, 1.0)], "validation": [(5, 1.5)]}, mark=(5, "best"))
    assert {"Loss", "training", "validation", "best"} <= set(texts(chart))
    assert len(line(chart, 1)) == 1


def test_long_series_are_averaged():
    points = line(charts.line_chart("t", {"x": [(step, float(step % 2)) for step in range(1, 1201)]}))
    assert len(points) == 300
    assert len({y for _, y in points}) == 1  # each of the 300 points averages two zeros and two ones


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1.13, 3.4, [1, 2, 3, 4]),
        (0, 2e-4, [0, 5e-5, 1e-4, 1.5e-4, 2e-4]),
        (3690, 4620, [3500, 4000, 4500, 5000]),
        (2.0, 2.0, None),
    ],
)
def test_ticks_are_round_and_enclose_the_data(low, high, ticks):
    found = charts._ticks(low, high, 4)
    assert ticks is None or found == pytest.approx(ticks)
    assert found[0] <= low
    assert found[-1] >= high


@pytest.mark.parametrize(("low", "high"), [(1.2, 1.3), (0.5, 5.0), (1e-3, 1e4), (7.0, 7.0)])
def test_log_ticks_are_there(low, high):
    assert 1 <= len(charts._log_ticks(low, high)) <= 10


def test_one_point_draws():
    assert line(charts.line_chart("t", {"x": [(1, 0.0)]}, log=True)) == [(56.0, pytest.approx(204, abs=160))]


def test_small_ticks_are_short():
    assert [charts._tick_text(value) for value in (5e-5, 1.5e-4, 0.0, 0.25, 12345.0)] == [
        "5e-5",
        "1.5e-4",
        "0",
        "0.25",
        "12,345",
    ]


def test_intervals_show_value_interval_and_untuned_model():
    chart = charts.interval_chart("Scores", [Interval("rougeL", 31.2, 30.0, 32.4, 18.4), Interval("loss", 1.5, None, None)])
    assert "31.20 [30.00, 32.40]" in texts(chart)
    root = ElementTree.fromstring(chart)
    hollow, first, second = (float(each.get("cx")) for each in root.iter("circle"))
    assert hollow < first
    assert second < hollow
    (span,) = [each for each in root.iter("line") if each.get("class") == "span"]
    assert float(span.get("x1")) < first < float(span.get("x2"))


def test_names_are_escaped():
    chart = charts.line_chart("<b>&", {'"x>': [(1, 1.0)], "y": [(1, 2.0)]})
    assert "<b>" not in chart
    assert {"<b>&", '"x>'} <= set(texts(chart))


def test_a_file_of_its_own_is_valid_svg_with_its_style():
    root = ElementTree.fromstring(charts.standalone(charts.line_chart("a > b", {"x": [(1, 1.0), (2, 2.0)]})))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert re.search(r"prefers-color-scheme:dark", root.find("{http://www.w3.org/2000/svg}style").text)

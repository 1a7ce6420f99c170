"""Tables of measured runs, and the page they stand on."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from scripts.bench import charts
from scripts.bench.measured import Measured
from scripts.bench.page import BEGIN, END, Played, between_markers, markdown, rows_table, section, tunings_table, turns_table
from scripts.bench.works import Contestant, Work, growth, works

RUN = Measured(
    *("lora", "llmft", "", 0, "s", "d", 30.0, 9.0, 10.0, 11.0, 12.0, 1 << 30, 0.02),
    flops=40e9,
    ceiling=100e9,
    losses=[3.0, 2.5],
)
LORA = works(bf16=False)[0]


def played() -> list[Played]:
    """llmft in three rounds, twice as fast as a peer with twice the memory."""
    turns = [replace(RUN, round=number, per_second=30.0 + number) for number in range(3)]
    slower = [
        replace(run, contestant="Trainer", tuning="1 x 8, fp32", per_second=run.per_second / 2, peak_bytes=2 << 30)
        for run in turns
    ]
    tunings = [replace(slower[0], round=-1), replace(slower[0], round=-1, tuning="2 x 4, fp32, sorted", per_second=1.0)]
    return [
        Played(Contestant("llmft", "llmft"), turns, []),
        Played(Contestant("Trainer", "trainer"), slower, tunings),
        Played(Contestant("TRL", "trl"), [], []),
    ]


def test_table_of_turns():
    """Medians, ratios within rounds, memory, share of the ceiling; who had no turn has no row."""
    lines = turns_table(LORA, played()).splitlines()
    assert len(lines) == 4
    assert lines[2] == "| llmft | 31.0 (30.0 to 32.0) |  | 11.0 |  | 1,024 |  | 9.0 (9.0 to 9.0) |  | 40 % | 2.50000 |"
    assert lines[3] == (
        "| Trainer (1 x 8, fp32) | 15.5 (15.0 to 16.0) | 2.00 (2.00 to 2.00) x | 11.0 | 1.00 x | 2,048 | 0.50 x | 9.0 (9.0 to 9.0) | 1.00 x "
        "| 40 % | 2.50000 |"
    )


def test_other_rows_have_no_loss_to_compare():
    """Rows grouped over the epoch are other rows at equal steps."""
    one, other, _ = played()
    grouped = [replace(run, tuning="8 x 4, fp32, grouped") for run in other.turns]
    assert turns_table(LORA, [one, Played(other.contestant, grouped, [])]).endswith("| other rows |")


def test_generation_counts_equal_texts():
    """Against what transformers wrote."""
    work = next(work for work in works(bf16=False) if work.name == "generation")
    one, other, _ = played()
    ours = [replace(run, texts=["a", "b", "c", "d"]) for run in one.turns]
    theirs = [replace(run, texts=["a", "b", "c", "x"]) for run in other.turns]
    lines = turns_table(work, [Played(one.contestant, ours, []), Played(other.contestant, theirs, [])]).splitlines()
    assert "new tokens/s" in lines[0]
    assert lines[2].endswith("| 75 % |")
    assert lines[3].endswith("| 100 % |")


def test_what_was_tried():
    """The fastest is bold."""
    lines = tunings_table(played()).splitlines()
    assert lines[2].startswith("| **Trainer** | **1 x 8, fp32** | **1** | **15.0** |")
    assert lines[3].startswith("| Trainer | 2 x 4, fp32, sorted | 1 | 1.0 |")
    assert tunings_table(played()[:1]) == ""


def test_the_fastest_is_so_by_the_median_and_never_failed():
    """One lucky run, and one that failed after it had gone through, are no choice."""
    _, peer, _ = played()
    one = replace(peer.tunings[0], tuning="one", per_second=9.0)
    lucky = [replace(one, tuning="lucky", per_second=speed) for speed in (10.0, 8.0, 8.5)]
    steady = [replace(one, tuning="steady", per_second=speed) for speed in (9.5, 9.0, 9.1)]
    failing = [replace(one, tuning="failing", per_second=20.0), replace(one, tuning="failing", per_second=0.0, failed="exit 1")]
    lines = tunings_table([replace(peer, tunings=[*lucky, *failing, *steady])]).splitlines()
    assert lines[2].startswith("| Trainer | lucky | 3 | 8.5 (8.0 to 10.0) |")
    assert lines[3] == "| Trainer | failing | 2 | exit 1 |  |  |"
    assert lines[4].startswith("| **Trainer** | **steady** | **3** | **9.1 (9.0 to 9.5)** |")


def test_what_is_not_counted_stays_empty():
    tried = [replace(each, tunings=[replace(run, tokens_share=None) for run in each.tunings]) for each in played()]
    assert tunings_table(tried).splitlines()[2].endswith("** |  |")


def test_section_tells_how_quiet_it_was():
    """The busiest run that counts."""
    assert "3 rounds; others took at most 2 % of the machine." in section(LORA, played())


def test_markdown():
    """Figures to the right."""
    assert markdown([["a", "b"], ["1", "2"]]) == "| a | b |\n|---|---:|\n| 1 | 2 |"


def test_page_keeps_what_stands_around():
    """Only what is between the markers is written, again and again."""
    page = f"# Title\n\n{BEGIN}\nold\n{END}\n\nafter\n"
    once = between_markers(page, "new")
    assert once == f"# Title\n\n{BEGIN}\n\nnew\n\n{END}\n\nafter\n"
    assert between_markers(once, "new") == once
    with pytest.raises(ValueError, match="no <!--"):
        between_markers("# Title\n", "new")


def test_table_of_rows():
    """What a file takes by its rows; works that differ in something else are not in it."""
    grown = {work: [Played(work.contestants[0], [RUN] if work.name == "rows-10000" else [], [])] for work in growth(bf16=False)}
    assert rows_table(grown).splitlines()[2:] == ["| 10,000 | 9 | 12 | 1,024 |"]
    assert rows_table({LORA: played()}) == ""


def test_charts_of_growth():
    """A line per contestant over the sizes, in seconds per step."""
    found: dict[Work, dict[str, list[Measured]]] = {}
    for work in growth(bf16=False):
        if work.name in ("length-64", "length-32"):
            found[work] = {"llmft": [replace(RUN, seconds=6.0 if work.name == "length-64" else 3.0)], "Trainer": []}
    _, _, figure = charts.CHARTS[0]
    assert charts.lines("length", found, figure) == {"llmft": [(32.0, 1.0), (64.0, 2.0)]}
    assert charts.lines("batch", found, figure) == {}
    picture = ElementTree.fromstring(charts.growth(found))
    assert len(picture.findall("{http://www.w3.org/2000/svg}svg")) == 1
    assert "llmft 2 at 64" in "".join(picture.itertext())
    assert charts.growth({}) == ""

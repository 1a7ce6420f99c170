"""Rows, labels and names at their worst go through a real run; what comes out for people, spreadsheets and the hub is text."""

import csv
import io
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import crash_lab
import pytest
import yaml

from llmft.cli.main import main
from llmft.config.shown import CONTROLS

LABELS = [
    "<img src=x onerror=alert(1)>",
    "=HYPERLINK(\"http://e.org/?\"&A1)",
    "\x1b[31mred\x1b]0;owned\x07",
    "</title></style><script>alert(2)</script>",
    "user\u202enimda",
    "a\x9b2Jb`|[x](javascript:alert(3))",
]  # fmt: skip
TEXTS = [f"{label} of Private Person number {number}" for number, label in enumerate(LABELS * 4)]
ACTIVE = {"script", "iframe", "object", "embed", "img", "a", "form", "input", "base", "frame", "video", "audio", "foreignobject", "animate", "set", "use", "image"}  # fmt: skip


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A finished run on those rows: (its folder, what it said)."""
    folder = tmp_path_factory.mktemp("someones_home") / "private<b>"
    folder.mkdir()
    for split, count in (("train", 24), ("validation", 6), ("test", 6)):
        rows = [{"id": f"=id{n}", "text": TEXTS[n], "label": LABELS[n % len(LABELS)]} for n in range(count)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["train", "task=classification", f"model.name={tiny / 'llama'}", "task.source={text}", "task.target={label}", "output_dir=run",
             *(f"task.data.{split}={folder / split}.jsonl" for split in ("train", "validation", "test")), "task.name=<script>x</script>",
             "training.max_steps=2", "training.batch_size=8", "hardware.threads=1", "hardware.precision=fp32", "adapter=none"]  # fmt: skip
    code, said = crash_lab.run(words, folder, {"LLMFT_CACHE": str(folder / "cache")})
    assert code == 0, said
    return folder / "run", said


class Page(HTMLParser):
    """Tags with their attributes, and texts, as a browser would see them."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)


def test_the_report_is_text(run):
    folder, _ = run
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert not ACTIVE & {tag.lower() for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "src", "srcdoc", "xlink:href")], (
            tag
        )
        assert attributes.get("href", "data:,") == "data:,"
    assert [tag for tag, _ in page.tags].count("style") == 1
    shown = " ".join(page.texts)
    for label in LABELS:
        assert label in shown
    policy = next(attributes["content"] for _, attributes in page.tags if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def test_the_card_is_markdown_without_rows_and_places(run):
    folder, _ = run
    text = (folder / "README.md").read_text(encoding="utf-8")
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head)["tags"][1] == "<script>x</script>"
    assert not CONTROLS.search(text)
    assert "Private Person" not in text
    for private in ("someones_home", "private<b>", "/tmp", str(Path.home()) + "/", str(folder.parent)):
        assert private not in text
    prose = re.sub(r"^```.*?^```$", "", body, flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"(?<!\\)<(?!0\.001)|\]\(", prose)


def test_nothing_said_commands_the_terminal(run):
    folder, said = run
    assert not CONTROLS.search(said)
    assert not CONTROLS.search((folder / "train.log").read_text(encoding="utf-8"))


def predict(folder, monkeypatch, *words):
    monkeypatch.chdir(folder.parent)
    return main(["predict", "run=run", "hardware.threads=1", *words])


def test_a_table_holds_no_formula(run, monkeypatch, tmp_path, capsys):
    folder, _ = run
    assert predict(folder, monkeypatch, "input=test.jsonl", f"output={tmp_path / 'x.csv'}") == 0
    said = capsys.readouterr().err
    assert predict(folder, monkeypatch, "input=test.jsonl", f"output={tmp_path / 'x.jsonl'}") == 0
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    rows = crash_lab.rows(tmp_path / "x.jsonl")
    assert [row["id"] for row in rows] == [f"=id{n}" for n in range(6)]  # as it is
    assert [cell["id"] for cell in cells] == [f"'=id{n}" for n in range(6)]
    for cell in cells:
        assert not [text for text in cell.values() if re.match(r"\s*[=+@\t\r]|\s*-\D", text)]
    num = sum(cell[name].startswith("'") for cell in cells for name in cell)
    assert f"{num} cells that a spreadsheet would take for a formula begin with ' there" in said


def test_a_terminal_gets_no_commands_and_a_pipe_the_text(run, monkeypatch):
    folder, _ = run

    class Terminal(io.StringIO):
        def isatty(self):
            return self.terminal

    said = {}
    for terminal in (True, False):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(("\n".join(TEXTS) + "\n").replace("\x07", "").encode())))
        out = Terminal()
        out.terminal = terminal
        monkeypatch.setattr(sys, "stdout", out)
        assert predict(folder, monkeypatch) == 0
        said[terminal] = out.getvalue()
    assert not CONTROLS.search(said[True])
    assert len(said[True].splitlines()) == len(TEXTS)
    assert said[True] != said[False] or not CONTROLS.search(said[False])

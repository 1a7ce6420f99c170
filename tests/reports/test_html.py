import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

from llmft.reports import html

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Collects tags and texts, and checks that every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def render(sample):
    return html.render(
        sample.results,
        sample.config,
        sample.plan,
        sample.train_rows,
        sample.validation_rows,
        sample.predictions,
        sample.untuned,
        sample.commands,
    )


def test_the_page_needs_nothing_from_outside(sample):
    page = Page(render(sample))
    names = [tag for tag, _ in page.tags]
    assert not {"script", "iframe", "img", "object", "form", "a"} & set(names)
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert attributes.get("href", "data:,") == "data:,"
        assert "src" not in attributes
    policy = next(attributes["content"] for _, attributes in page.tags if "http-equiv" in attributes)
    style = re.search(r"<style>(.*?)</style>", render(sample), re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()  # CSP level 3, section 2.3.1: no other style
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    assert len(re.findall("<style", render(sample))) == 1
    assert not [tag for tag, attributes in page.tags if "style" in attributes]
    assert not re.search(r"url\(|@import", render(sample))


def test_rows_are_shown_as_text_and_never_as_markup(sample):
    sample.predictions[0]["id"] = sample.untuned[0]["id"] = "<img src=x onerror=1>"
    sample.predictions[0]["scores"] = {"<i>": 1.0}
    sample.results.task = "<b>task</b>"
    sample.commands = ["llmft train 'task.source=<u>'"]
    text = render(sample)
    assert not re.search(r"<(script|img|i|u|b>task)\b", text)
    page = Page(text)
    assert "<script>alert(1)</script> & more" in page.texts
    assert "A </td> tag\nand a second line" in page.texts
    assert "<img src=x onerror=1>" in page.texts


def test_findings_come_before_scores_and_scores_before_predictions(sample):
    texts = Page(render(sample)).texts
    order = [
        texts.index(part)
        for part in ("What to look at", "6 of 96 sources were <cut>.", "Scores", "Training", "Plan", "Predictions")
    ]
    assert order == sorted(order)


def test_scores_before_and_after_with_intervals(sample):
    joined = " ".join(" ".join(Page(render(sample)).texts).split())
    assert "rougeL 18.40 31.20 [29.95, 32.45] +12.80 [11.60, 14.00] <0.001 24.00 96" in joined
    assert "loss 3.310 1.600" in joined


def test_only_the_first_predictions_are_shown(sample):
    text = render(sample)
    assert "news.29" in text
    assert "news.30" not in text
    assert "The first 30 of 40 rows of test" in text


def test_an_evaluation_without_training_or_untuned_model(sample):
    sample.results.train = sample.results.before = sample.results.objective = None
    sample.results.paired = sample.results.baselines = {}
    sample.results.gates = sample.results.checks = []
    sample.train_rows = sample.validation_rows = sample.untuned = sample.commands = []
    sample.plan = {}
    texts = Page(render(sample)).texts
    assert not {"Training", "Plan", "before", "before tuning", "What to look at", "How to do it again"} & set(texts)
    assert "prediction" in texts


def test_a_score_without_value(sample):
    metrics = sample.results.metrics
    metrics["loss"] = type(metrics["loss"])(None, None, None, 96, "s", False)
    assert "loss 3.310 -" in " ".join(" ".join(Page(render(sample)).texts).split())


def test_files(sample, tmp_path):
    rows = sample.train_rows + sample.validation_rows
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sample.predictions[0]["prediction"] = "half a pair: \ud83d"
    html.write_report(tmp_path, sample.results, sample.config, sample.plan, sample.predictions, sample.untuned, sample.commands)
    assert "half a pair: ?" in (tmp_path / "report.html").read_text(encoding="utf-8")
    chart = ElementTree.parse(tmp_path / "loss_curve.svg").getroot()
    names = [element.text for element in chart.iter("{http://www.w3.org/2000/svg}text")]
    assert {"training", "validation", "best"} <= set(names)


def test_no_curve_without_training(sample, tmp_path):
    html.write_report(tmp_path, sample.results, sample.config, {}, [], [], [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html"]

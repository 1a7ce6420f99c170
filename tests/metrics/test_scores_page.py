"""docs/scores.md says what signatures look like; here they are held against those of the scores."""

import re
from pathlib import Path

from llmft.config.rules import SCORES
from llmft.data.example import DocumentPrediction
from llmft.metrics.bleu import bleu
from llmft.metrics.chrf import chrf
from llmft.metrics.classification import classification
from llmft.metrics.health import health
from llmft.metrics.perplexity import perplexity
from llmft.metrics.regression import regression
from llmft.metrics.rouge import rouge
from llmft.metrics.squad import squad
from llmft.metrics.ter import ter

PAGE = (Path(__file__).parents[2] / "docs" / "scores.md").read_text(encoding="utf-8")


def without_versions(signature: str) -> str:
    return re.sub(r"(?<=version:)[\d.]+|(?<=rouge-score )[\d.]+", "", signature)


def test_signatures():
    texts, references = ["a text", "1.5"], [["a text"], ["1.5"]]
    scores = [
        *(score for measure in (bleu, chrf, ter, rouge, squad, health) for score in measure(texts, references)),
        *perplexity([DocumentPrediction("1", 1.0, 2, 3)], [()], window=512, overlap=256),
        *classification([("a",), ("b",)], [("a",), ("b",)]),
        *regression(["1", "2"], [["1"], ["2"]]),
    ]
    found = {score.name: without_versions(score.signature) for score in scores}
    block = re.search(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert block
    written = [re.split(" {2,}", line) for line in block[1].splitlines()]
    assert len(written) >= 12
    for scores_named, signature in written:
        for name in scores_named.split(" and ")[0].split(", "):
            assert found[name] == without_versions(signature), name


def test_every_score_is_described():
    assert [name for names in SCORES.values() for name in names if f"`{name}`" not in PAGE and f"| {name} |" not in PAGE] == []

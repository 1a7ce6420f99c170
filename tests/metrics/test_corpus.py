"""BLEU, chrF and TER against sacrebleu's own command line, its own bootstrap, and counts summed by hand."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import sacrebleu

from llmft.errors import ConfigError, DataError
from llmft.metrics.bleu import bleu
from llmft.metrics.chrf import chrf
from llmft.metrics.intervals import paired, with_interval
from llmft.metrics.ter import ter


def command_line(folder, predictions, streams, *options):
    """What `python -m sacrebleu` says about the texts written to files, one a line."""
    names = [f"{name}.txt" for name in ["system", *(f"references{number}" for number in range(len(streams)))]]
    for name, lines in zip(names, [predictions, *streams], strict=True):
        (folder / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", *names[1:], "-i", names[0], "-w", "4", "-f", "json", *options]
    found = json.loads(subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout)
    return found if isinstance(found, list) else [found]


def test_equals_the_command_line(texts, tmp_path):
    found = {score.name: score for metric in (bleu, chrf, ter) for score in metric(texts.predictions, texts.both)}
    streams = [texts.first, texts.second]
    expected = command_line(tmp_path, texts.predictions, streams, "-m", "bleu", "chrf", "ter")
    expected += command_line(tmp_path, texts.predictions, streams, "-m", "chrf", "--chrf-word-order", "2")
    for name, theirs in zip(("bleu", "chrf2", "ter", "chrf2pp"), expected, strict=True):
        assert found[name].value == pytest.approx(theirs["score"], abs=0.0001)
        assert found[name].signature == theirs["signature"]
        assert found[name].n == 7
    # python -m sacrebleu first.txt second.txt -i system.txt -m bleu chrf ter; sacrebleu 2.6.0
    assert [round(found[name].value, 2) for name in ("bleu", "chrf2", "ter", "chrf2pp")] == [45.92, 68.20, 41.82, 66.86]
    assert found["bleu"].parts["precisions"] == pytest.approx([92.9, 66.0, 45.5, 26.3], abs=0.05)
    assert found["bleu"].parts["brevity_penalty"] == pytest.approx(0.882, abs=0.0005)
    assert [score.higher_is_better for score in found.values()] == [True, True, True, False]


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({"tokenize": "intl"}, ["--tokenize", "intl"]),
        ({"tokenize": "char"}, ["--tokenize", "char"]),
        ({"lowercase": True}, ["-lc"]),
        ({"language": "zho_Hans"}, ["--tokenize", "zh"]),
    ],
)
def test_options_of_bleu(texts, tmp_path, options, flags):
    score = bleu(texts.predictions, [[text] for text in texts.first], **options)[0]
    (theirs,) = command_line(tmp_path, texts.predictions, [texts.first], "-m", "bleu", *flags)
    assert (score.value, score.signature) == (pytest.approx(theirs["score"], abs=0.0001), theirs["signature"])


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({"case_sensitive": True}, ["--ter-case-sensitive"]),
        ({"normalized": True, "no_punct": True}, ["--ter-normalized", "--ter-no-punct"]),
        ({"language": "ja"}, ["--ter-normalized", "--ter-asian-support"]),
        ({"language": "ja", "asian_support": False}, []),
    ],
)
def test_options_of_ter(texts, tmp_path, options, flags):
    score = ter(texts.predictions, [[text] for text in texts.first], **options)[0]
    (theirs,) = command_line(tmp_path, texts.predictions, [texts.first], "-m", "ter", *flags)
    assert (score.value, score.signature) == (pytest.approx(theirs["score"], abs=0.0001), theirs["signature"])


def test_rows_with_different_numbers_of_references(texts):
    """Counts of the rows with two references and of those with one, each measured by sacrebleu alone, summed."""
    references = [list(both) if row < 3 else [both[0]] for row, both in enumerate(texts.both)]
    two = sacrebleu.BLEU().corpus_score(texts.predictions[:3], [texts.first[:3], texts.second[:3]])
    one = sacrebleu.BLEU().corpus_score(texts.predictions[3:], [texts.first[3:]])
    expected = sacrebleu.BLEU.compute_bleu(
        [sum(pair) for pair in zip(two.counts, one.counts, strict=True)],
        [sum(pair) for pair in zip(two.totals, one.totals, strict=True)],
        two.sys_len + one.sys_len,
        two.ref_len + one.ref_len,
        smooth_method="exp",
    )
    score = bleu(texts.predictions, references)[0]
    assert score.value == pytest.approx(expected.score)
    assert "nrefs:var" in score.signature
    edits = [
        sacrebleu.TER().corpus_score(texts.predictions[:3], [texts.first[:3], texts.second[:3]]),
        sacrebleu.TER().corpus_score(texts.predictions[3:], [texts.first[3:]]),
    ]
    rate = 100 * sum(each.num_edits for each in edits) / sum(each.ref_length for each in edits)
    assert ter(texts.predictions, references)[0].value == pytest.approx(rate)
    # the first row has fewer references than the others, and an empty text among them stays one
    assert bleu(["a", "b"], [["a"], ["b", ""]])[0].n == 2


@pytest.mark.parametrize(
    ("metric", "theirs"),
    [
        (bleu, [sacrebleu.BLEU()]),
        (chrf, [sacrebleu.CHRF(), sacrebleu.CHRF(word_order=2)]),
        (ter, [sacrebleu.TER()]),
    ],
)
def test_a_sample_is_scored_as_a_corpus_of_its_own(texts, metric, theirs):
    for score, reference in zip(metric(texts.predictions, texts.both), theirs, strict=True):
        for places in np.random.default_rng(0).integers(7, size=(20, 7)):
            rows = [[texts.predictions[place], *texts.both[place]] for place in places]
            expected = reference.corpus_score([row[0] for row in rows], [[row[1] for row in rows], [row[2] for row in rows]])
            assert score.of_sample(places) == pytest.approx(expected.score)


def test_the_interval_is_that_of_sacrebleus_bootstrap():
    random = np.random.default_rng(0)
    words = [f"w{number}" for number in range(200)]
    references = [" ".join(random.choice(words, 12)) for _ in range(150)]
    predictions = [" ".join(w if random.random() < 0.8 else "x" for w in each.split()) for each in references]
    score = with_interval(bleu(predictions, [[each] for each in references])[0], seed=1)
    theirs = sacrebleu.BLEU().corpus_score(predictions, [references], n_bootstrap=2000)
    assert score.value == pytest.approx(theirs.score)
    assert score.low == pytest.approx(theirs._mean - theirs._ci, abs=0.15 * theirs._ci)
    assert score.high == pytest.approx(theirs._mean + theirs._ci, abs=0.15 * theirs._ci)


def test_systems_are_compared_as_corpora(texts):
    worse = bleu(["The", *texts.predictions[1:]], texts.both)[0]
    better = bleu(texts.predictions, texts.both)[0]
    found = paired(worse, better, seed=0)
    assert found.difference == pytest.approx(better.value - worse.value)
    assert found.low == 0.0  # samples without the first row: no difference
    assert found.difference != pytest.approx(np.mean(better.per_example) - np.mean(worse.per_example), abs=0.1)


def test_values_of_rows_are_sentence_scores_under_a_name_of_their_own(texts):
    score = bleu(texts.predictions, texts.both)[0]
    one = sacrebleu.BLEU(effective_order=True)
    expected = [one.sentence_score(text, both).score for text, both in zip(texts.predictions, texts.both, strict=True)]
    assert score.per_example == pytest.approx(expected)
    assert score.row_name == "bleu_of_row"


def test_empty_predictions_count_as_wrong():
    """Four of eight words are there: the precisions are 1, the brevity penalty exp(1 - 8/4)."""
    assert bleu(["a b c d", ""], [["a b c d"], ["e f g h"]])[0].value == pytest.approx(100 * math.exp(-1))
    assert [score.value for metric in (bleu, chrf) for score in metric(["", ""], [["a"], ["b"]])] == [0.0] * 3
    assert ter(["", ""], [["a b"], ["c"]])[0].value == 100.0  # three words to insert, of three


def test_nothing_to_score():
    scores = [score for metric in (bleu, chrf, ter) for score in metric([], [])]
    assert [score.n for score in scores] == [0] * 4
    assert all(math.isnan(score.value) for score in scores)
    assert [with_interval(score, 0).low for score in scores] == [None] * 4


@pytest.mark.parametrize("metric", [bleu, chrf, ter])
@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (["a", "b"], [["a"]], "2 predictions, but references for 1 rows"),
        (["a"], [["a"], ["b"]], "1 predictions, but references for 2 rows"),
        (["a", None], [["a"], ["b"]], "row 2: the prediction is None; expected a text"),
        (["a", "b"], [["a"], []], r"row 2: the references are \[\]; expected a list of texts"),
        (["a", "b"], [["a"], [None]], r"row 2: the references are \[None\]; expected"),
        (["a", "b"], ["a", "b"], "row 1: the references are 'a'; expected a list"),
    ],
)
def test_bad_rows(metric, predictions, references, message):
    with pytest.raises(DataError, match=message):
        metric(predictions, references)


def test_an_unknown_tokenizer():
    with pytest.raises(ConfigError, match=r"tokenize=13b: no such tokenizer\. Did you mean 13a\? Sacrebleu has 13a, char,"):
        bleu(["a"], [["a"]], tokenize="13b")


@pytest.mark.parametrize(("language", "extra"), [("ja", "ja"), ("jpn_Jpan", "ja"), ("ko_KR", "ko"), ("__ko__", "ko")])
def test_a_tokenizer_that_is_not_installed(monkeypatch, language, extra):
    monkeypatch.setattr(f"sacrebleu.tokenizers.tokenizer_{extra}_mecab.MeCab", None)
    with pytest.raises(ConfigError, match=rf"tokenize={extra}-mecab: this tokenizer is not installed.*'llmft\[{extra}\]'"):
        bleu(["a"], [["a"]], language=language)
    assert bleu(["a b c d"], [["a b c d"]], language=language, tokenize="char")[0].value == pytest.approx(100)

"""ROUGE against rouge-score called by hand, and against values counted by hand."""

import pytest
from rouge_score.rouge_scorer import RougeScorer

from llmft.errors import ConfigError, DataError
from llmft.metrics.rouge import rouge
from llmft.metrics.sentences import split_sentences

PREDICTIONS = [
    "The cats were running. A dog slept!",
    "",
    "Completely different words here",
    "the quick brown fox",
    "日本語 text",
]
REFERENCES = [
    ["A dog sleeps.\nThe cat runs.", "The cats ran. The dog slept"],
    ["something"],
    ["nothing in common"],
    ["the quick brown fox"],
    ["text", "other", "text text"],
]


def by_name(scores):
    return {score.name: score for score in scores}


def f1(precision, recall):
    return 200 * precision * recall / (precision + recall)


@pytest.mark.parametrize("stem", [True, False])
def test_equals_rouge_score(stem):
    """The best reference for each kind, sentences on lines of their own for Lsum, the mean in 0..100."""
    found = by_name(rouge(PREDICTIONS, REFERENCES, use_stemmer=stem))
    by_line = {
        PREDICTIONS[0]: "The cats were running.\nA dog slept!",
        REFERENCES[0][0]: "A dog sleeps. The cat runs.".replace(". ", ".\n"),
        REFERENCES[0][1]: "The cats ran.\nThe dog slept",
    }
    for kind in ("rouge1", "rouge2", "rougeL", "rougeLsum"):
        scorer = RougeScorer([kind], use_stemmer=stem)
        expected = []
        for prediction, references in zip(PREDICTIONS, REFERENCES, strict=True):
            if kind == "rougeLsum":
                prediction, references = by_line.get(prediction, prediction), [by_line.get(each, each) for each in references]
            expected.append(100 * max(scorer.score(reference, prediction)[kind].fmeasure for reference in references))
        assert found[kind].per_example == pytest.approx(expected)
        assert found[kind].value == pytest.approx(sum(expected) / 5)
        assert found[kind].n == 5


def test_by_hand():
    # 3 of 4 words right, 3 of 5 found; of the pairs: "the cat" and "cat sat" of 3 and 4; longest common: the cat sat
    found = by_name(rouge(["the cat sat down"], [["yes the cat sat there"]]))
    assert found["rouge1"].value == pytest.approx(f1(3 / 4, 3 / 5))
    assert found["rouge2"].value == pytest.approx(f1(2 / 3, 2 / 4))
    assert found["rougeL"].value == pytest.approx(f1(3 / 4, 3 / 5))


def test_lsum_does_not_care_about_the_order_of_sentences():
    found = by_name(rouge(["First comes one. Then comes two."], [["Then comes two. First comes one."]]))
    assert found["rougeLsum"].value == pytest.approx(100)
    assert found["rougeL"].value == pytest.approx(50)


def test_stemmer():
    assert by_name(rouge(["summaries"], [["summary"]], use_stemmer=True))["rouge1"].value == pytest.approx(100)
    assert by_name(rouge(["summaries"], [["summary"]], use_stemmer=False))["rouge1"].value == 0


def test_an_empty_prediction_counts_as_wrong():
    found = by_name(rouge(["", "same words"], [["same words"], ["same words"]]))
    assert found["rougeL"].per_example == (0.0, pytest.approx(100))
    assert found["rougeL"].value == pytest.approx(50)


def test_the_signature_says_how():
    with_stemmer, without = (rouge(["a"], [["a"]], use_stemmer=stem)[0] for stem in (True, False))
    assert "stemmer:yes" in with_stemmer.signature
    assert "stemmer:no" in without.signature
    assert with_stemmer.higher_is_better


@pytest.mark.parametrize(
    ("language", "tokenizer", "reference", "expected"),
    [
        ("en", None, "今天", "stemmer:yes|tokenizer:default"),
        ("en", "unicode", "day", "stemmer:no|tokenizer:unicode"),
        ("de_DE", None, "Tag", "stemmer:no|tokenizer:unicode"),
        ("deu_Latn", "default", "Tag", "stemmer:no|tokenizer:default"),
        (None, None, "a good day", "stemmer:yes|tokenizer:default"),
        (None, None, "День good", "stemmer:yes|tokenizer:default"),  # half and half
        (None, None, "Добрый day", "stemmer:no|tokenizer:unicode"),
        (None, None, "1885", "stemmer:yes|tokenizer:default"),
        (None, "default", "今天", "stemmer:yes|tokenizer:default"),
    ],
)
def test_the_tokenizer_goes_by_language(language, tokenizer, reference, expected):
    score = rouge([reference], [[reference]], tokenizer=tokenizer, language=language)[0]
    assert expected in score.signature


def test_characters_by_hand():
    """Chinese: 3 of 4 characters right, 3 of 5 found; of the pairs 2 of 3 and of 4; the sentences are told apart."""
    found = by_name(rouge(["我爱你吗"], [["她说我爱你"]], language="zh"))
    assert found["rouge1"].value == pytest.approx(f1(3 / 4, 3 / 5))
    assert found["rouge2"].value == pytest.approx(f1(2 / 3, 2 / 4))
    assert found["rougeL"].value == pytest.approx(f1(3 / 4, 3 / 5))
    turned = by_name(rouge(["先来一个。再来两只。"], [["再来两只。先来一个。"]], language="zh"))
    assert (turned["rougeLsum"].value, turned["rougeL"].value) == (pytest.approx(100), pytest.approx(50))


def test_an_unknown_tokenizer():
    with pytest.raises(
        ConfigError, match=r"task.metrics.rouge.tokenizer=unicod: expected one of default, unicode, or null\. Did"
    ):
        rouge(["a"], [["a"]], tokenizer="unicod")


@pytest.mark.parametrize("references", [[["a"]], [["a"], []], [["a"], "b"]])
def test_rows_that_do_not_belong_together(references):
    with pytest.raises(DataError, match="rouge: "):
        rouge(["a", "b"], references)


def test_nothing_to_score():
    assert [(score.value, score.n) for score in rouge([], [])] == [(0.0, 0)] * 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("It costs 3.5 dollars, e.g. today. Yes.", ["It costs 3.5 dollars, e.g. today.", "Yes."]),
        ('He said "No." She left.', ['He said "No.', "She left."]),
        ("A line\nbreak is none.\n\nA blank line is", ["A line break is none.", "A blank line is"]),
        ("", []),
        (" \n\n ", []),
        ("no end", ["no end"]),
    ],
)
def test_sentences(text, expected):
    assert split_sentences(text) == expected

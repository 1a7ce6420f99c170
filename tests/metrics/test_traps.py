"""Ways in which published scores went wrong: the right value, and the wrong one that each mistake gives."""

# ruff: noqa: RUF001 (letters and marks of other scripts are what is tested)

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from llmft.errors import DataError
from llmft.metrics.bleu import bleu
from llmft.metrics.rouge import rouge
from llmft.metrics.squad import squad


def value(scores, name=None):
    return next(score.value for score in scores if name in (None, score.name))


def test_wrong_tokenizer():
    """Chinese: 13a takes a sentence for one word, and one wrong character makes all of it wrong.

    By hand for the characters: 9 of 10 right; of the pairs 7 of 9, of the triples 5 of 8, of the runs of four 3 of 7.
    """
    prediction, reference = "我住在北京的西边吗？", "我住在北京的东边吗？"
    right = 100 * (9 / 10 * 7 / 9 * 5 / 8 * 3 / 7) ** 0.25
    assert value(bleu([prediction], [[reference]], language="zh")) == pytest.approx(right)
    assert right == pytest.approx(65.80, abs=0.005)
    wrong = sacrebleu.corpus_bleu([prediction], [[reference]]).score
    assert wrong == 0.0


def test_truncated_references(texts):
    """A reference file that ends early: sacrebleu scores the rows that there are, and is happy."""
    with pytest.raises(DataError, match="7 predictions, but references for 4 rows"):
        bleu(texts.predictions, texts.both[:4])
    right = value(bleu(texts.predictions, texts.both))
    wrong = sacrebleu.corpus_bleu(texts.predictions, [texts.first[:4], texts.second[:4]]).score
    assert (round(right, 2), round(wrong, 2)) == (45.92, 45.99)


def test_special_tokens(texts):
    """Tokens left in by decoding are words to the metric; in predictions and references alike they are free points."""
    right = value(bleu(texts.predictions, texts.both))
    left_in, first, second = ([f"<s>{text}</s>" for text in each] for each in (texts.predictions, texts.first, texts.second))
    in_predictions = sacrebleu.corpus_bleu(left_in, [texts.first, texts.second]).score
    in_both = sacrebleu.corpus_bleu(left_in, [first, second]).score
    assert (round(right, 2), round(in_predictions, 2), round(in_both, 2)) == (45.92, 25.70, 66.91)


def test_mean_of_sentence_bleu(texts):
    score = bleu(texts.predictions, texts.both)[0]
    one = sacrebleu.BLEU(effective_order=True)
    wrong = np.mean([one.sentence_score(text, both).score for text, both in zip(texts.predictions, texts.both, strict=True)])
    assert (round(score.value, 2), round(wrong, 2)) == (45.92, 40.20)
    assert score.row_name != score.name  # values of rows are shown, and no one takes their mean for BLEU


def test_first_reference_only(texts):
    firsts = [[text] for text in texts.first]
    assert round(value(bleu(texts.predictions, texts.both)), 2) == 45.92
    assert round(value(bleu(texts.predictions, firsts)), 2) == 36.08  # wrong
    assert value(rouge(["a dog"], [["a cat", "a dog"]]), "rouge1") == pytest.approx(100)
    assert value(rouge(["a dog"], [["a cat"]]), "rouge1") == pytest.approx(50)  # wrong
    assert value(squad(["Hugo"], [["Victor Hugo", "Hugo"]]), "f1") == 100
    assert value(squad(["Hugo"], [["Victor Hugo"]]), "f1") == pytest.approx(200 / 3)  # wrong


def test_rouge_of_other_scripts():
    """Identical texts: rouge-score's tokenizer keeps a to z and digits only."""
    texts = [
        "今天天气很好，我们去公园。",
        "Сегодня хорошая погода.",
        "आज मौसम अच्छा है।",
        "الطقس جميل اليوم.",
        "วันนี้อากาศดี",
        "2024年东京",
    ]
    references = [[text] for text in texts]
    assert value(rouge(texts, references), "rougeL") == pytest.approx(100)
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    wrong = np.mean([100 * scorer.score(text, text)["rougeL"].fmeasure for text in texts])
    assert wrong == pytest.approx(100 / 6)  # the one with a number in it


def test_rouge_of_other_latin_texts():
    """rouge-score makes "m", "chte" of "möchte", and Porter's stemmer takes what it knows from English off German words."""
    right = value(rouge(["Er mochte Käse"], [["Er möchte Kuchen"]], language="de"), "rouge1")
    wrong = value(rouge(["Er mochte Käse"], [["Er möchte Kuchen"]], language="de", tokenizer="default"), "rouge1")
    assert right == pytest.approx(100 / 3)
    assert wrong == pytest.approx(100 * 2 * 1 / (4 + 4))


def test_a_reference_that_is_no_list():
    """A text where a list belongs is a list of characters to sacrebleu: BLEU over letters."""
    with pytest.raises(DataError, match="expected a list of texts"):
        bleu(["the cat"], ["the cat"])


def test_predictions_left_out():
    """Unanswered questions: dropped by some, the mean is then over those that were easy."""
    found = squad(["Paris", None, ""], [["Paris"], ["Rome"], ["Bern"]])
    assert value(found, "exact_match") == pytest.approx(100 / 3)
    assert value(squad(["Paris"], [["Paris"]]), "exact_match") == 100  # wrong

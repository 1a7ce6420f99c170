"""From scores to an answer: held to the published procedure, written out slowly, on the same scores."""

import numpy as np
import pytest

from llmft.data.example import SpanExample
from llmft.tasks.learn.span_search import Scored, choose_answer
from llmft.tasks.learn.span_windows import Window

CONTEXT = " ".join(f"w{number}" for number in range(60))
WORDS = [(CONTEXT.index(f"w{number}"), CONTEXT.index(f"w{number}") + len(f"w{number}")) for number in range(60)]
EXAMPLE = SpanExample("q", "?", CONTEXT, (), (), "f:1")


def window(first, last, question=4, no_answer=0):
    """[CLS] question [SEP] words first..last [SEP]"""
    offsets = [(0, 0)] + [(place, place + 2) for place in range(question)] + [(0, 0)] + WORDS[first : last + 1] + [(0, 0)]
    context = [False] * (question + 2) + [True] * (last + 1 - first) + [False]
    covers = (WORDS[first][0], WORDS[last][1])
    return Window(np.zeros(len(offsets), np.int32), np.array(context), np.array(offsets), covers, no_answer, question + 2)


def scored(window, start=None, end=None, seed=0):
    random = np.random.default_rng(seed)
    start = random.normal(size=len(window)) * 3 if start is None else start
    end = random.normal(size=len(window)) * 3 if end is None else end
    return Scored(window, np.asarray(start, np.float64), np.asarray(end, np.float64))


def published(features, context, longest, version_2, n_best=20):
    """transformers' postprocess_qa_predictions, step by step; without its softmax, and None where it answers "empty"."""
    null, candidates = None, []
    for feature in features:
        start, end = feature.start_T.tolist(), feature.end_T.tolist()
        if null is None or start[0] + end[0] < null:
            null = start[0] + end[0]
        for first in sorted(range(len(start)), key=lambda place: start[place], reverse=True)[:n_best]:
            for last in sorted(range(len(end)), key=lambda place: end[place], reverse=True)[:n_best]:
                if not (feature.window.context_T[first] and feature.window.context_T[last]):
                    continue
                if last < first or last - first + 1 > longest:
                    continue
                candidates.append(
                    (start[first] + end[last], feature.window.offsets_T2[first][0], feature.window.offsets_T2[last][1])
                )
    if not candidates:
        return None
    score, first, last = sorted(candidates, key=lambda each: each[0], reverse=True)[0]
    if version_2 and null - score > 0:
        return "", (0, 0), null, null - score
    return context[first:last], (first, last), score, null - score


@pytest.mark.parametrize("no_answer", [False, True])
@pytest.mark.parametrize("longest", [1, 5, 30])
def test_the_published_procedure(longest, no_answer):
    chosen = set()
    for seed in range(150):
        features = [
            scored(window(first, last), seed=3 * seed + number)
            for number, (first, last) in enumerate([(0, 29), (20, 49), (40, 59)])
        ]
        if seed % 2:
            for each in features:  # so that no answer wins now and then
                each.start_T[0] += 6
                each.end_T[0] += 6
        expected = published(features, CONTEXT, longest, no_answer)
        found = choose_answer(EXAMPLE, features, longest, no_answer)
        if expected is not None:
            assert (found.text, (found.start, found.end), found.score, found.null_odds) == expected
            chosen.add(found.text)
    assert len(chosen) > 30
    assert ("" in chosen) == no_answer


def put(size, **values):
    scores = np.full(size, -10.0)
    for place, value in values.items():
        scores[int(place[1:])] = value
    return scores


def test_only_answers_that_can_be_are_taken():
    """[CLS] 4 question tokens [SEP] w0 at place 6. Each pair below scores higher than the next, and only the last is one."""
    asked = window(0, 9)
    start = put(len(asked), p1=9, p12=8, p6=7, p9=3)
    end = put(len(asked), p2=9, p16=8, p7=5.5, p15=4, p10=2)
    # question to question; to [SEP]; w6 to w1, backwards; w0 to w9, too long
    found = choose_answer(EXAMPLE, [scored(asked, start, end)], longest=5, no_answer=False)
    assert (found.text, found.score) == ("w0 w1", 12.5)
    assert found.null_odds == -20 - 12.5
    found = choose_answer(EXAMPLE, [scored(asked, start, end)], longest=1, no_answer=False)
    assert (found.text, found.score) == ("w6", -2.0)  # 8 at place 12, and -10


def test_no_answer_is_the_lowest_over_windows():
    """Each window has to say that the answer is not in it; taking the highest would answer nothing here."""
    first, second = window(0, 9), window(5, 14)
    features = [
        scored(first, put(len(first), p0=4, p6=1), put(len(first), p0=4, p7=1)),
        scored(second, put(len(second), p0=0.5, p6=2), put(len(second), p0=1, p8=1)),
    ]
    found = choose_answer(EXAMPLE, features, 30, no_answer=True)
    assert (found.text, found.score, found.null_odds) == ("w5 w6 w7", 3.0, 1.5 - 3.0)
    features[1].start_T[0] = 3
    found = choose_answer(EXAMPLE, features, 30, no_answer=True)
    assert (found.text, found.start, found.end, found.score, found.null_odds) == ("", 0, 0, 4.0, 1.0)
    assert choose_answer(EXAMPLE, features, 30, no_answer=False).text == "w5 w6 w7"
    features[1].start_T[0] = 2
    assert choose_answer(EXAMPLE, features, 30, no_answer=True).text == "w5 w6 w7"  # as good as none: an answer


def test_where_no_answer_stands():
    """XLNet has its class token at the end."""
    asked = window(0, 4, no_answer=11)
    found = choose_answer(EXAMPLE, [scored(asked, put(12, p11=5, p0=50), put(12, p11=6, p0=50))], 30, no_answer=True)
    assert (found.text, found.score) == ("", 11.0)


def test_where_no_best_start_goes_with_a_best_end_all_are_tried():
    """The 20 best starts are all behind the 20 best ends; run_qa would answer "empty" here."""
    asked = window(0, 49)
    size = len(asked)
    start, end = np.arange(size) * 0.01, -np.arange(size) * 0.01
    assert published([scored(asked, start, end)], CONTEXT, 30, False) is None
    found = choose_answer(EXAMPLE, [scored(asked, start, end)], 30, no_answer=False)
    pairs = {(start[first] + end[last], first, last) for first in range(6, 56) for last in range(first, min(first + 30, 56))}
    assert found.score == pytest.approx(max(pairs)[0])


def test_tokens_of_nothing_are_no_answer():
    asked = window(0, 2)
    asked.offsets_T2[7] = (3, 3)  # a token that is a space
    found = choose_answer(EXAMPLE, [scored(asked, put(10, p7=9, p6=1), put(10, p7=9, p8=1))], 30, no_answer=False)
    assert (found.text, found.score) == ("w0 w1 w2", 2.0)
    asked.context_T[:] = False
    found = choose_answer(EXAMPLE, [scored(asked)], 30, no_answer=True)
    assert (found.text, found.start, found.end, found.null_odds) == ("", 0, 0, 0.0)

"""An encoder that marks answers: its loss against transformers' own, and what it predicts."""

from collections import Counter

import numpy as np
import pytest
import torch

from llmft.config.schema import Formulation
from llmft.data.example import SpanExample
from llmft.models.load import Head
from llmft.models.padded import pad, span_logits
from llmft.tasks.learn.span_encoder import span_loss

TEXT = "The quick brown fox jumps over the lazy dog while the cat sleeps in the sun. A function returns a value; a module holds names."
SETTINGS = {
    "formulation": Formulation.span,
    "context": "{context}",
    "target": "{answer}",
    "max_source_tokens": 24,
    "overlap": 6,
}


@pytest.fixture
def learner(open_learner):
    return open_learner("bert", **SETTINGS)


def example(question, answer, context=TEXT, name="0"):
    starts = (context.index(answer),) if answer else ()
    return SpanExample(name, question, context, (answer,) if answer else (), starts, "f:1")


def examples():
    asked = [
        ("Who jumps?", "fox"),
        ("What does it hold, of all things?", "names"),
        ("When?", ""),
        ("Over which dog, then?", "the lazy dog"),
    ]
    return [example(*each, name=str(number)) for number, each in enumerate(asked)]


def test_windows_as_documents(learner):
    documents = list(learner.encode(example("Who jumps?", "brown fox")))
    tokenizer = learner.pretrained.tokenizer
    assert len(documents) > 1
    assert {document.units for document in documents} == {1}
    assert {document.source_cut for document in documents} == {0}
    held = [document for document in documents if document.labels != (0, 0)]
    assert held
    for document in held:
        first, last = document.labels
        assert document.loss_mask[first : last + 1].all()
        assert tokenizer.decode(document.ids[first : last + 1]) == tokenizer.decode(
            tokenizer("brown fox", add_special_tokens=False).input_ids
        )
    assert all(document.labels == (0, 0) for document in learner.encode(example("Who jumps?", "")))


def test_a_question_that_is_cut_is_counted_once(learner):
    documents = list(learner.encode(example("fox dog " * 30, "fox")))
    cut = 60 * len(learner.pretrained.tokenizer("fox", add_special_tokens=False).input_ids)
    assert len(documents) > 1
    assert [document.source_cut > 0 for document in documents] == [True] + [False] * (len(documents) - 1)
    assert documents[0].source_cut < cut * 2


def plain(model, document):
    """transformers' own loss of one window, without padding."""
    ids = torch.from_numpy(document.ids.astype(np.int64))[None]
    types = (torch.arange(ids.shape[1]) >= document.second).long()[None]
    start, end = (torch.tensor([int(place)]) for place in document.labels)
    return model(input_ids=ids, token_type_ids=types, start_positions=start, end_positions=end).loss


def test_loss_is_transformers_own_summed_over_windows(learner):
    model = learner.pretrained.model
    documents = [document for each in examples() for document in learner.encode(each)]
    assert len({len(document) for document in documents}) > 1  # so that some are padded
    with torch.no_grad():
        expected = sum(plain(model, document).item() for document in documents)
        assert learner.loss(documents).item() == pytest.approx(expected, rel=1e-5)
        assert learner.check_fast_path(documents).fast
        assert learner.loss(documents).item() == pytest.approx(expected, rel=1e-5)
        # a batch of equal lengths is what run_qa computes: the mean over windows
        alike = [document for document in documents if len(document) == 24]
        ids = torch.from_numpy(np.stack([document.ids for document in alike]).astype(np.int64))
        types = torch.stack([(torch.arange(24) >= document.second).long() for document in alike])
        labels = torch.tensor([document.labels for document in alike])
        whole = model(input_ids=ids, token_type_ids=types, start_positions=labels[:, 0], end_positions=labels[:, 1]).loss
        assert len(alike) > 2
        assert learner.loss(alike).item() / len(alike) == pytest.approx(whole.item(), rel=1e-5)


def test_padding_is_no_place_for_an_answer(learner):
    """transformers lets it compete: the same windows in one padded batch get another loss, the more so, the more is padded."""
    model = learner.pretrained.model
    documents = [document for each in examples() for document in learner.encode(each)]
    labels = torch.tensor([document.labels for document in documents])
    inputs = pad(documents, learner.pretrained.tokenizer.pad_token_id, model.device, model)
    with torch.no_grad():
        theirs = model(**inputs, start_positions=labels[:, 0], end_positions=labels[:, 1]).loss.item()
        start, end = span_logits(model, inputs)
        ours = learner.loss(documents).item() / len(documents)
        assert ours < theirs - 0.005
        everything = torch.ones_like(inputs["attention_mask"]).bool()
        assert span_loss(start, end, everything, labels).item() / len(documents) == pytest.approx(theirs, rel=1e-5)


def test_gradients_of_micro_batches_add_up(learner):
    model = learner.pretrained.model
    documents = [document for each in examples() for document in learner.encode(each)]
    assert learner.check_fast_path(documents).fast

    def gradients(parts):
        model.zero_grad()
        for part in parts:
            learner.loss(part).backward()
        return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])

    whole, parts = gradients([documents]), gradients([documents[:2], documents[2:7], documents[7:]])
    assert torch.linalg.norm(whole - parts) < 1e-5 * torch.linalg.norm(whole)
    assert torch.linalg.norm(whole) > 0


def test_predictions_do_not_depend_on_batches_or_order(learner):
    torch.manual_seed(1)
    learner.pretrained.model.qa_outputs.weight.data.normal_()  # so that scores differ by more than rounding
    asked = [*examples(), example("Which cat?", "", TEXT * 3, "long"), example("Fox?", "", "A fox.", "short")]
    learner.pretrained.model.train()
    found = {}
    for size in (1, 3, 8):
        learner.generation.batch_size = size
        found[size] = dict(learner.predict(asked))
    backwards = {len(asked) - 1 - place: each for place, each in learner.predict(asked[::-1])}
    assert learner.pretrained.model.training
    assert sorted(found[1]) == list(range(len(asked)))
    for other in (found[3], found[8], backwards):
        for place, expected in found[1].items():
            assert other[place].id == asked[place].id
            assert (other[place].text, other[place].start, other[place].end) == (expected.text, expected.start, expected.end)
            assert other[place].score == pytest.approx(expected.score, abs=1e-4)
            assert other[place].null_odds == pytest.approx(expected.null_odds, abs=1e-4)
    for place, each in found[1].items():
        assert each.text == asked[place].context[each.start : each.end] != ""


def test_what_is_kept_with_the_model(learner):
    assert learner.head is Head.span
    assert learner.settings() == {"window": 24, "overlap": 6, "max_answer_tokens": 30, "no_answer": False}
    assert learner.encoding() == {"window": 24, "truncation": "end"}
    assert learner.generation_config() is None


def test_the_window_is_at_most_the_models(open_learner):
    assert open_learner("bert", **SETTINGS | {"max_source_tokens": None}).windower.length == 512
    assert open_learner("bert", **SETTINGS | {"max_source_tokens": 2000}).windower.length == 512


def test_sixteen_rows_are_learnt_by_heart(open_learner):
    """Which word answers which name is drawn by lot, so that only learning it can give it; some have no answer."""
    words = ["quick", "brown", "fox", "jumps", "over", "lazy", "dog", "cat", "sleeps", "function", "value", "module"]
    answers = [*words, "", "", "", ""]
    np.random.default_rng(3).shuffle(answers)
    rows = [
        example(f"{number % 10} {'abcdefghijklmnop'[number]}?", answer, name=str(number))
        for number, answer in enumerate(answers)
    ]
    learner = open_learner("bert", **SETTINGS | {"max_source_tokens": 64, "no_answer": True})
    model = learner.pretrained.model
    documents = [document for each in rows for document in learner.encode(each)]
    torch.manual_seed(0)
    for weight in model.parameters():
        if weight.ndim == 2:
            weight.data.normal_(std=0.2)  # loud weights learn quickly
    assert learner.check_fast_path(documents[:3]).fast
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0)

    def right():
        found = dict(learner.predict(rows))
        return [found[place].text == answers[place] for place in range(16)]

    assert sum(right()) <= 6
    for _ in range(100):
        (learner.loss(documents) / len(documents)).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert Counter(right()) == {True: 16}

"""Masked language modelling: what is hidden and how, exact pseudo-likelihoods, gaps filled in the text as it was written."""

import numpy as np
import pytest
import torch

from llmft.config.schema import Formulation
from llmft.data.example import DocumentExample
from llmft.errors import ConfigError, ModelError
from llmft.tasks.learn.together import Form

TEXT = "The quick brown fox jumps over the lazy dog while the cat sleeps in the sun."
FAMILIES = ["bert", "roberta"]


@pytest.fixture
def open_lm(open_learner):
    def make(name="bert", **settings):
        learner = open_learner(name, formulation=Formulation.language_model, source="{text}", **settings)
        with torch.no_grad():  # fresh weights give every token the same chance
            for weight in learner.pretrained.model.parameters():
                if weight.ndim >= 2:
                    weight.mul_(5)
        return learner

    return make


def example(text, name="0", continued=False):
    return DocumentExample(name, text, "f:1", continued)


@pytest.mark.parametrize("name", FAMILIES)
def test_windows_hold_each_token_once_with_the_special_tokens_around(open_lm, name):
    learner = open_lm(name, max_source_tokens=8)
    tokenizer = learner.pretrained.tokenizer
    whole = tokenizer(TEXT, add_special_tokens=False).input_ids
    documents = list(learner.encode(example(TEXT)))
    assert [int(token) for each in documents for token in each.ids[each.loss_mask]] == whole
    for each in documents:
        assert [each.ids[0], each.ids[-1]] == [tokenizer.cls_token_id, tokenizer.sep_token_id]
        assert each.loss_mask.tolist() == [False] + [True] * (len(each) - 2) + [False]
        assert each.units == max(1, round(0.15 * (len(each) - 2)))
    [one] = open_lm(name).encode(example(TEXT))
    assert one.ids.tolist() == tokenizer(TEXT).input_ids


def test_special_tokens_in_a_text_are_not_hidden(open_lm):
    learner = open_lm()
    [document] = learner.encode(example("the [SEP] fox [MASK]"))
    tokenizer = learner.pretrained.tokenizer
    open_to_it = tokenizer.convert_ids_to_tokens(document.ids[document.loss_mask].tolist())
    assert "[SEP]" not in open_to_it
    assert "[MASK]" not in open_to_it
    assert document.units == 1
    [nothing] = learner.encode(example("[SEP]"))
    assert nothing.units == 0
    [empty] = learner.encode(example(""))
    assert (len(empty), empty.units) == (0, 0)


def test_fifteen_in_a_hundred_are_hidden_eight_in_ten_by_the_mask(open_lm):
    """Devlin et al. 2019: of 15 % chosen 80 % become the mask, 10 % a random token, 10 % stay."""
    learner = open_lm()
    [document] = learner.encode(example(" ".join([TEXT] * 6)))
    candidates = np.flatnonzero(document.loss_mask)
    mask = learner.pretrained.tokenizer.mask_token_id
    torch.manual_seed(0)
    rounds = 600
    chosen = np.zeros(len(document))
    masked = changed = 0
    for _ in range(rounds):
        ids, places = learner.hide(document)
        assert len(set(places.tolist())) == document.units == round(0.15 * len(candidates))
        others = np.setdiff1d(np.arange(len(document)), places)
        assert (ids[others] == document.ids[others]).all()
        chosen[places] += 1
        masked += int((ids[places] == mask).sum())
        changed += int((ids[places] != document.ids[places]).sum())
    drawn = rounds * document.units
    assert chosen[~document.loss_mask].sum() == 0
    assert chosen[candidates].min() > rounds * 0.15 / 2  # every place has its turn: 90 expected, 9 the deviation
    vocabulary = len(learner.pretrained.tokenizer)
    # a random token is the mask, or the token itself, once in a vocabulary
    assert masked / drawn == pytest.approx(0.8 + 0.1 / vocabulary, abs=0.015)
    assert changed / drawn == pytest.approx(0.9 - 0.1 / vocabulary, abs=0.012)


@pytest.mark.parametrize("name", FAMILIES)
def test_loss_is_that_of_transformers_times_the_hidden_tokens(open_lm, name):
    learner = open_lm(name, max_source_tokens=20)
    documents = list(learner.encode(example(TEXT)))
    torch.manual_seed(3)
    hidden = [learner.hide(document) for document in documents]
    expected = 0.0
    with torch.no_grad():
        for document, (ids, places) in zip(documents, hidden, strict=True):
            labels = np.full(len(ids), -100)
            labels[places] = document.ids[places]
            found = learner.pretrained.model(input_ids=tensor(ids)[None], labels=tensor(labels)[None])
            expected += found.loss.item() * document.units
        torch.manual_seed(3)
        assert learner.loss(documents).item() == pytest.approx(expected, rel=1e-5)
        assert learner.loss(documents).item() != pytest.approx(expected, rel=1e-3)  # others are hidden each time
        torch.manual_seed(3)
        assert learner.loss(documents).item() == pytest.approx(expected, rel=1e-5)


def tensor(array):
    return torch.from_numpy(array.astype(np.int64))


@pytest.mark.parametrize("name", FAMILIES)
def test_each_token_is_scored_from_all_others(open_lm, name):
    """Salazar et al. 2020, written out: one pass per token."""
    learner = open_lm(name)
    model, tokenizer = learner.pretrained.model, learner.pretrained.tokenizer
    whole = torch.tensor(tokenizer(TEXT).input_ids)
    expected = 0.0
    for place in range(1, len(whole) - 1):
        ids = whole.clone()
        ids[place] = tokenizer.mask_token_id
        with torch.no_grad():
            expected -= model(input_ids=ids[None]).logits[0, place].double().log_softmax(-1)[whole[place]].item()
    [(place, found)] = learner.predict([example(TEXT)])
    assert (place, found.tokens, found.num_bytes, found.pseudo) == (0, len(whole) - 2, len(TEXT), True)
    assert found.nll == pytest.approx(expected, rel=1e-5)


def test_each_token_is_scored_once_whatever_the_overlap(open_lm):
    count = len(open_lm().ids_of(TEXT))
    found = {}
    for overlap in (0, 3, 7):
        [(_, prediction)] = open_lm(max_source_tokens=8, overlap=overlap).predict([example(TEXT)])
        assert prediction.tokens == count
        found[overlap] = prediction.nll
    assert len(set(found.values())) == 3  # by other contexts


@pytest.mark.parametrize("name", FAMILIES)
def test_gaps_are_filled_and_the_rest_stays_as_it_was(open_lm, name):
    learner = open_lm(name)
    tokenizer, model = learner.pretrained.tokenizer, learner.pretrained.model
    mask = tokenizer.mask_token
    text = f"THE  {mask} brown\n{mask} jumps."
    [(_, found)] = learner.predict([example(text, continued=True)])
    ids = torch.tensor([tokenizer(text).input_ids])
    with torch.no_grad():
        best = model(input_ids=ids).logits[0].argmax(-1)
    first, second = (tokenizer.decode([token]).strip().removeprefix("##") for token in best[ids[0] == tokenizer.mask_token_id])
    assert found.text == f"THE  {first} brown\n{second} jumps."
    assert found.finished == "stop"
    assert found.tokens == len(ids[0]) - 4  # neither the gaps nor what stands around
    [(_, whole)] = learner.predict([example("The fox.", continued=True)])
    assert whole.text == "The fox."


def test_gaps_in_every_window_are_filled(open_lm):
    [(_, found)] = open_lm(max_source_tokens=4).predict([example("the [MASK] fox " * 6, continued=True)])
    assert "[MASK]" not in found.text
    assert found.text.count(" fox ") == 6


def test_the_window_leaves_room_for_special_tokens(open_lm):
    learner = open_lm()
    assert learner.formulation.window == learner.window == 510
    documents = list(learner.encode(example(TEXT * 40)))
    assert max(map(len, documents)) == 512
    with torch.no_grad():
        assert torch.isfinite(learner.loss(documents))


def test_what_cannot_be_read(open_lm, open_learner, monkeypatch):
    with pytest.raises(ConfigError, match=r"^task\.overlap=8 of a window of 8 tokens leaves nothing to predict\. "):
        open_lm(max_source_tokens=8, overlap=8)
    learner = open_lm()
    learner.pretrained.tokenizer.mask_token = None
    with pytest.raises(ModelError, match=r"has no mask token; set mask_token in its tokenizer_config\.json$"):
        type(learner)(learner.formulation, learner.pretrained, learner.generation, learner.precision)


def test_unknown_words_are_scored_as_their_bytes_are_counted(open_lm):
    task = open_lm("bert")
    [known, unknown] = [DocumentExample(str(place), text, "f:1") for place, text in enumerate(("the fox", "the \u4eac fox"))]
    found = dict(task.predict([known, unknown]))
    assert task.pretrained.tokenizer.unk_token_id in task.ids_of(unknown.source)
    assert found[1].tokens == found[0].tokens + 1
    assert found[1].num_bytes == found[0].num_bytes + len(" \u4eac".encode())


def test_the_last_layer_computes_hidden_tokens_alone(open_lm, rows_fed):
    learner = open_lm()
    documents = [document for text in (TEXT, "the lazy dog", TEXT[:40]) for document in learner.encode(example(text))]
    torch.manual_seed(0)
    expected = learner.loss(documents).item()
    learner.form = Form.flat
    torch.manual_seed(0)
    assert learner.loss(documents).item() == pytest.approx(expected, rel=1e-5)
    layers, tokens = learner.pretrained.model.config.num_hidden_layers, sum(map(len, documents))
    assert rows_fed == [tokens] * (layers - 1) + [sum(document.units for document in documents)]

"""Language modelling on decoders: what is learnt of a text, and that likelihoods follow the published convention."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from llmft.config.schema import Formulation
from llmft.data.example import DocumentExample
from llmft.errors import ConfigError

TEXT = "The quick brown fox jumps over the lazy dog while the cat sleeps in the sun. Return the first element of a list."
CJK = "東京都は日本の首都です"


@pytest.fixture
def open_lm(open_learner):
    def make(name="gpt2", **settings):
        learner = open_learner(name, formulation=Formulation.language_model, source="{text}", **settings)
        with torch.no_grad():  # fresh weights give every token the same chance
            for weight in learner.pretrained.model.parameters():
                if weight.ndim >= 2:
                    weight.mul_(4)
        return learner

    return make


def example(text, name="0", continued=False):
    return DocumentExample(name, text, "f:1", continued)


def reference(model, ids, window, stride):
    """The sliding window of transformers' documentation (perplexity of fixed-length models), in float64, token by token."""
    nll, count, before = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + window, len(ids))
        fresh = end - before
        piece = torch.tensor(ids[begin:end])
        targets = piece.clone()
        targets[:-fresh] = -100
        with torch.no_grad():
            logp = model(input_ids=piece[None]).logits[0].double().log_softmax(-1)
        for place in range(1, len(piece)):
            if targets[place] != -100:
                nll -= logp[place - 1, piece[place]].item()
                count += 1
        before = end
        if end == len(ids):
            break
    return nll, count


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize(("window", "overlap"), [(8, 0), (8, 4), (8, 7), (400, 0), (2, 1)])
def test_likelihoods_follow_the_published_convention(open_lm, name, window, overlap):
    learner = open_lm(name, max_source_tokens=window, overlap=overlap)
    ids = learner.pretrained.tokenizer(TEXT, add_special_tokens=False).input_ids
    [(place, found)] = learner.predict([example(TEXT)])
    nll, count = reference(learner.pretrained.model, ids, window, window - overlap)
    assert place == 0
    assert found.tokens == count
    assert found.nll == pytest.approx(nll, rel=1e-5)
    assert found.num_bytes == len(TEXT)
    unscored = 1 if overlap else -(-len(ids) // window)
    assert count == len(ids) - unscored
    assert (found.text, found.finished, found.pseudo) == ("", "", False)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("text", [TEXT, "fox", CJK])
@pytest.mark.parametrize("window", [5, 7, 512])
def test_every_token_but_the_first_is_learnt_once_and_the_end(open_lm, name, text, window):
    learner = open_lm(name, max_source_tokens=window)
    tokenizer = learner.pretrained.tokenizer
    whole = [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    documents = list(learner.encode(example(text)))
    assert [int(token) for each in documents for token in each.ids[each.loss_mask]] == whole[1:]
    assert all(len(each) <= window and each.units == len(each) - 1 for each in documents)
    assert all(before.ids[-1] == after.ids[0] for before, after in pairwise(documents))
    assert {(each.id, each.where, each.source_cut) for each in documents} == {("0", "f:1", 0)}


def test_loss_is_that_of_transformers_times_the_tokens(open_lm):
    learner = open_lm(max_source_tokens=6)
    documents = list(learner.encode(example(TEXT)))
    expected = 0.0
    with torch.no_grad():
        for each in documents:
            ids = torch.from_numpy(each.ids.astype(np.int64))[None]
            expected += learner.pretrained.model(input_ids=ids, labels=ids).loss.item() * (len(each) - 1)
        assert learner.loss(documents).item() == pytest.approx(expected, rel=1e-5)
        assert learner.check_fast_path(documents).fast
        assert learner.loss(documents).item() == pytest.approx(expected, rel=1e-5)


def test_a_text_without_tokens(open_lm):
    learner = open_lm()
    learner.pretrained.tokenizer.eos_token = None
    for text in ("", "f"):
        [document] = learner.encode(example(text))
        assert (len(document), document.units) == (0, 0)
        [(_, found)] = learner.predict([example(text)])
        assert (found.nll, found.tokens) == (0.0, 0)


def test_texts_go_on_as_transformers_writes(open_lm):
    learner = open_lm("llama", max_source_tokens=64)
    model, tokenizer = learner.pretrained.model, learner.pretrained.tokenizer
    texts = [TEXT, "The quick", " a"]
    found = dict(learner.predict([example(text, str(place), continued=True) for place, text in enumerate(texts)]))
    for place, text in enumerate(texts):
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        written = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)[0].tolist()
        whole = tokenizer.decode(written, skip_special_tokens=True)
        assert text + found[place].text == whole
        ended = tokenizer.eos_token_id in written[ids.shape[1] :]
        assert found[place].finished == ("stop" if ended else "length")
    assert found[1].nll == pytest.approx(next(learner.predict([example("The quick")]))[1].nll)


def test_a_continuation_of_nothing_and_of_too_much(open_lm):
    learner = open_lm()
    long = "fox " * 600  # more than the 512 tokens that the model reads
    found = dict(learner.predict([example("", continued=True), example(long, continued=True)]))
    assert found[0].tokens == 0
    assert found[1].tokens == len(learner.ids_of(long)) - 2  # two windows
    assert all(each.finished in ("stop", "length") for each in found.values())


def test_training_goes_on_as_before_a_prediction(open_lm):
    learner = open_lm()
    learner.pretrained.model.train()
    first, second = (next(learner.predict([example(TEXT)]))[1] for _ in range(2))
    assert first == second  # no dropout
    assert learner.pretrained.model.training


def test_the_window_is_told_to_the_scores(open_lm):
    assert open_lm(max_source_tokens=64).formulation.window == 64
    assert open_lm().formulation.window == 512  # what the model reads
    assert open_lm(max_source_tokens=9000).formulation.window == 512


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_source_tokens": 8, "overlap": 8}, r"^task\.overlap=8 of a window of 8 tokens leaves nothing to predict\. "),
        ({"max_source_tokens": 1}, r"^task\.overlap=0 of a window of 1 tokens leaves nothing to predict\. "),
        (
            {"max_new_tokens": 512},
            r"^generation\.max_new_tokens=512 leaves no room for a text to go on with: the model reads 512 ",
        ),
    ],
)
def test_windows_that_leave_nothing(open_lm, settings, message):
    with pytest.raises(ConfigError, match=message):
        open_lm(**settings)

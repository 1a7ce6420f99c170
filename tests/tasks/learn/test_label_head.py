"""Label heads: losses and probabilities are transformers' own, pairs are read as pairs, cutting is counted, folders are plain."""

import pytest
import torch
from tokenizers import processors
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from llmft.config.schema import Formulation, LabelKind, Truncation
from llmft.data.example import LabelExample
from llmft.errors import DataError
from llmft.models.export import export
from llmft.tasks.learn.together import Form

SINGLE, MULTI, VALUE = LabelKind.single, LabelKind.multi, LabelKind.value
FAMILIES = ["bert", "roberta", "gpt2", "llama", "bart", "t5"]
NAMES = ["glad", "mad", "sad"]
TEXTS = ["The quick brown fox jumps over the lazy dog.", "A cat", "Return the first element of a list, or raise an error."]
LONG = "the lazy dog " * 400


@pytest.fixture
def open_label(open_learner):
    def make(name, kind=SINGLE, **settings):
        torch.manual_seed(1)
        given = {"source": "{text}", "labels": [] if kind is VALUE else NAMES, **settings}
        learner = open_learner(name, formulation=Formulation.label, label_kind=kind, **given)
        with torch.no_grad():  # fresh weights score all texts alike, but for T5, which does not divide by sqrt(d)
            for weight in learner.pretrained.model.parameters():
                if weight.ndim >= 2:
                    weight.mul_(1 if name == "t5" else 5)
        return learner

    return make


def example(source, *targets, context=None, name="0"):
    return LabelExample(name, source, context, targets, "f:1")


def encode(learner, *examples):
    return [document for each in examples for document in learner.encode(each)]


def plain(model, tokenizer, texts):
    """What a user of transformers gives a model."""
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    if model.config.model_type != "bert":  # others' own tokenizers do not tell types
        inputs.pop("token_type_ids", None)
    return inputs


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("kind", "targets", "labels"),
    [
        (SINGLE, [("sad",), ("glad",), ("sad",)], torch.tensor([2, 0, 2])),
        (MULTI, [("sad", "glad"), (), ("mad",)], torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 0]])),
        (VALUE, [("-1.5",), ("0",), ("3",)], torch.tensor([-1.5, 0, 3])),
    ],
)
def test_loss_is_that_of_transformers_times_the_rows(open_label, name, kind, targets, labels):
    learner = open_label(name, kind)
    documents = encode(learner, *(example(text, *target) for text, target in zip(TEXTS, targets, strict=True)))
    assert [document.units for document in documents] == [1, 1, 1]
    model, tokenizer = learner.pretrained.model, learner.pretrained.tokenizer
    with torch.no_grad():
        expected = 3 * model(**plain(model, tokenizer, TEXTS), labels=labels).loss.item()
        assert learner.loss(documents).item() == pytest.approx(expected, rel=1e-5)
        assert sum(learner.loss([document]).item() for document in documents) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("kind", [SINGLE, MULTI, VALUE])
def test_the_saved_model_is_a_plain_one(open_label, tmp_path, name, kind):
    learner = open_label(name, kind)
    found = dict(learner.predict([example(text, name=str(place)) for place, text in enumerate(TEXTS)]))
    assert [found[place].id for place in range(3)] == ["0", "1", "2"]
    export(learner.pretrained, tmp_path / "model", learner.generation_config(), learner.settings(), False)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    with torch.no_grad():
        logits = model(**plain(model, AutoTokenizer.from_pretrained(tmp_path / "model"), TEXTS)).logits
    assert logits.std(0).max() > 1e-2  # the texts differ, so that a mistake shows
    if kind is VALUE:
        assert [float(found[place].labels[0]) for place in range(3)] == pytest.approx(logits[:, 0].tolist(), rel=1e-4, abs=1e-4)
        return
    assert model.config.id2label == dict(enumerate(NAMES))
    probabilities = logits.sigmoid() if kind is MULTI else logits.softmax(-1)
    for place, row in enumerate(probabilities):
        assert found[place].probabilities == pytest.approx(dict(zip(NAMES, row.tolist(), strict=True)), abs=1e-5)
        wanted = [name for name, p in zip(NAMES, row, strict=True) if p >= 0.5] if kind is MULTI else [NAMES[row.argmax()]]
        assert list(found[place].labels) == wanted


@pytest.mark.parametrize("name", FAMILIES)
def test_a_label_does_not_depend_on_the_batch(open_label, name):
    learner = open_label(name)
    examples = [example(text) for text in [*TEXTS, "Numbers such as 0, 1, 2", "fox", "", "<|endoftext|> </s> [SEP]"]]
    together = dict(learner.predict(examples))
    for place, each in enumerate(examples):
        [(_, alone)] = learner.predict([each])
        assert together[place].labels == alone.labels
        assert together[place].probabilities == pytest.approx(alone.probabilities, abs=1e-5)


def test_an_encoder_reads_a_pair_as_one(open_label):
    learner = open_label("bert", context="{b}")
    [document] = encode(learner, example("A cat", "sad", context="the lazy dog"))
    plain_pair = learner.pretrained.tokenizer("A cat", "the lazy dog", return_token_type_ids=True, return_tensors="pt")
    assert document.ids.tolist() == plain_pair.input_ids[0].tolist()
    assert document.second == plain_pair.token_type_ids[0].tolist().index(1)
    assert document.labels == (2.0,)
    [(_, found)] = learner.predict([example("A cat", context="the lazy dog")])
    with torch.no_grad():
        expected = learner.pretrained.model(**plain_pair).logits[0].softmax(-1)
    assert list(found.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-5)
    [turned] = encode(learner, example("the lazy dog", context="A cat"))
    assert turned.ids.tolist() != document.ids.tolist()


def test_a_decoder_reads_its_prompt_without_chat_template(open_label):
    learner = open_label("llama", prompt="Premise: {source}", context="{b}")
    [document] = encode(learner, example("A {cat}", "sad", context="the lazy dog"))
    assert learner.pretrained.tokenizer.chat_template
    assert learner.pretrained.tokenizer.decode(document.ids) == "Premise: A {cat}\n\nthe lazy dog"


def test_an_encoder_decoder_reads_its_prompt(open_label):
    learner = open_label("t5", encoder_prompt="mnli hypothesis {context} premise {source}", context="{b}")
    [document] = encode(learner, example("A cat", "sad", context="the lazy dog"))
    assert learner.pretrained.tokenizer.decode(document.ids) == "mnli hypothesis the lazy dog premise A cat</s>"


def test_an_encoder_decoder_is_asked_at_an_end_token(open_label):
    learner = open_label("bart")
    tokenizer = learner.pretrained.tokenizer
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel()  # one that writes no special tokens
    [document] = encode(learner, example("A cat", "sad"))
    assert tokenizer.decode(document.ids) == "A cat</s>"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_long_text_is_cut_and_counted(open_label, name):
    learner = open_label(name, max_source_tokens=5)
    tokenizer = learner.pretrained.tokenizer
    size = len(tokenizer(TEXTS[0], add_special_tokens=False).input_ids)
    [document] = encode(learner, example(TEXTS[0], "sad"))
    assert document.source_cut == size - 5
    assert len(document) == 5 + learner.frame
    [start] = encode(open_label(name, max_source_tokens=5, truncation=Truncation.start), example(TEXTS[0], "sad"))
    assert tokenizer.decode(start.ids, skip_special_tokens=True).strip().endswith("dog.")
    with pytest.raises(DataError, match=r"^f:1: the source has \d+ tokens, task\.max_source_tokens allows 5\. "):
        encode(open_label(name, max_source_tokens=5, truncation=Truncation.error), example(TEXTS[0], "sad"))


@pytest.mark.parametrize("name", ["bert", "gpt2", "bart"])
@pytest.mark.parametrize(("source", "context"), [(LONG, None), ("A cat", LONG), (LONG, "A cat"), (LONG, LONG)])
def test_everything_fits_the_context(open_label, name, source, context):
    """512 tokens. Of a pair the second text gives way, the first only where it leaves no room."""
    learner = open_label(name, context="{b}" if context else None)
    [document] = encode(learner, example(source, "sad", context=context))
    assert 512 - 3 < len(document) <= 512
    assert document.source_cut > 0
    if source == "A cat":
        begin = learner.pretrained.tokenizer("A cat").input_ids[:2]
        assert document.ids[:2].tolist() == begin
    with torch.no_grad():
        assert torch.isfinite(learner.loss([document]))


def test_without_names_the_model_gives_its_own(open_label, tmp_path):
    learner = open_label("bert")
    learner.pretrained.model.config.id2label = {0: "no", 1: "perhaps", 2: "yes"}
    formulation = learner.formulation
    formulation.labels = ()
    again = type(learner)(formulation, learner.pretrained, learner.generation, learner.precision)
    assert formulation.labels == ("no", "perhaps", "yes")
    [(_, found)] = again.predict([example("A cat")])
    assert list(found.probabilities) == ["no", "perhaps", "yes"]


def test_training_goes_on_as_before_a_prediction(open_label):
    learner = open_label("bert")
    learner.pretrained.model.train()
    first, second = (dict(learner.predict([example("A cat")])) for _ in range(2))
    assert first == second  # no dropout
    assert learner.pretrained.model.training
    assert learner.generation_config() is None


def test_the_last_layer_computes_first_tokens_alone(open_label, rows_fed):
    learner = open_label("bert")
    documents = encode(learner, *(example(text, "sad") for text in TEXTS))
    expected = learner.loss(documents).item()
    assert rows_fed == []
    learner.form = Form.flat
    assert learner.loss(documents).item() == pytest.approx(expected, rel=1e-5)
    layers, tokens = learner.pretrained.model.config.num_hidden_layers, sum(map(len, documents))
    assert rows_fed == [tokens] * (layers - 1) + [len(TEXTS)]

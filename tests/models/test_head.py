"""Heads: which class serves, what is fresh and said to be, and what a folder with a head of its own gives."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from llmft.errors import ConfigError, ModelError
from llmft.models.load import Head, load_pretrained

CPU = torch.device("cpu")
SINGLE, MULTI, VALUE = "single_label_classification", "multi_label_classification", "regression"
LABELS = ("bad", "fair", "good")


def load(folder, head, labels=(), problem=None, seed=0):
    torch.manual_seed(seed)
    return load_pretrained(folder, torch.float32, CPU, head, labels, problem)


CASES = {
    "llama": ("LlamaForSequenceClassification", ("score",)),
    "gpt2": ("GPT2ForSequenceClassification", ("score",)),
    "bert": ("BertForSequenceClassification", ("bert.pooler", "classifier")),  # saved without the pooler it reads
    "roberta": ("RobertaForSequenceClassification", ("classifier",)),
    "t5": ("T5ForSequenceClassification", ("classification_head",)),
    "bart": ("BartForSequenceClassification", ("classification_head",)),
}


@pytest.mark.parametrize(("name", "expected"), CASES.items(), ids=CASES)
def test_label_heads_are_fresh(tiny, name, expected):
    found = load(tiny / name, Head.label, LABELS, SINGLE)
    assert (type(found.model).__name__, found.new, found.head) == (*expected, Head.label)
    config = found.model.config
    assert (config.id2label, config.label2id) == ({0: "bad", 1: "fair", 2: "good"}, {"bad": 0, "fair": 1, "good": 2})
    assert (config.num_labels, config.problem_type) == (3, SINGLE)
    fresh = {key: value for key, value in found.model.state_dict().items() if key.startswith(expected[1])}
    same, other = (load(tiny / name, Head.label, LABELS, SINGLE, seed).model.state_dict() for seed in (0, 1))
    assert all(torch.equal(same[key], value) for key, value in found.model.state_dict().items())
    assert all(not torch.equal(other[key], value) for key, value in fresh.items() if key.endswith("weight"))
    assert all(torch.equal(other[key], value) for key, value in found.model.state_dict().items() if key not in fresh)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_span_head(tiny, name):
    found = load(tiny / name, Head.span)
    assert found.new == ("qa_outputs",)
    assert found.model.qa_outputs.weight.shape == (2, 32)


def test_the_kinds_of_labels(tiny):
    multi = load(tiny / "bert", Head.label, LABELS, MULTI).model.config
    assert (multi.num_labels, multi.problem_type) == (3, MULTI)
    value = load(tiny / "bert", Head.label, (), VALUE).model.config
    assert (value.num_labels, value.problem_type) == (1, VALUE)


@pytest.fixture
def classifier(tiny, tmp_path):
    """A folder with a trained head for LABELS."""
    model = load(tiny / "bert", Head.label, LABELS, SINGLE)
    torch.nn.init.constant_(model.model.classifier.weight, 0.5)
    model.model.save_pretrained(tmp_path / "c")
    model.tokenizer.save_pretrained(tmp_path / "c")
    return tmp_path / "c"


def test_label_names_stand_in_the_saved_configuration(classifier):
    saved = json.loads((classifier / "config.json").read_text())
    assert saved["id2label"] == {"0": "bad", "1": "fair", "2": "good"}
    assert saved["problem_type"] == SINGLE


@pytest.mark.parametrize(("labels", "problem"), [(LABELS, SINGLE), ((), SINGLE), ((), None), (LABELS, None)])
def test_a_head_for_these_classes_is_kept(classifier, labels, problem):
    found = load(classifier, Head.label, labels, problem)
    assert found.new == ()
    assert (found.model.classifier.weight == 0.5).all()
    assert found.model.config.id2label == dict(enumerate(LABELS))


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (("bad", "good"), SINGLE),
        (("good", "fair", "bad"), SINGLE),  # as many, but other ones: the old rows would stand for the wrong classes
        (LABELS, MULTI),
        ((), VALUE),
    ],
)
def test_a_head_for_other_classes_is_fresh(classifier, labels, problem):
    found = load(classifier, Head.label, labels, problem)
    assert "classifier" in found.new
    assert (found.model.classifier.weight - 0.5).abs().min() > 0.1  # drawn with a deviation of 0.02
    assert found.model.config.problem_type == problem
    if labels:
        assert found.model.config.id2label == dict(enumerate(labels))


def test_a_problem_that_the_folder_does_not_name_is_named(classifier):
    config = json.loads((classifier / "config.json").read_text())
    (classifier / "config.json").write_text(json.dumps(config | {"problem_type": None}))
    found = load(classifier, Head.label, LABELS, MULTI)
    assert (found.new, found.model.config.problem_type) == ((), MULTI)


def test_other_tools_read_the_head(classifier):
    model = AutoModelForSequenceClassification.from_pretrained(classifier)
    assert (model.classifier.weight == 0.5).all()
    assert model.config.id2label[2] == "good"


SENSELESS = {
    ("bert", Head.text): "model.name: bert is an encoder: it reads and writes no text. Name another model.",
    ("llama", Head.span): (
        "model.name: there is no llama for marking answers in a text, which is for encoders. Name a model of another kind."
    ),
    ("bart", Head.masked): (
        "model.name: there is no bart for predicting masked words, which is for encoders. Name a model of another kind."
    ),
    ("marian", Head.label): "model.name: there is no marian for classification. Name a model of another kind.",
}


@pytest.mark.parametrize(("pair", "message"), SENSELESS.items(), ids=str)
def test_a_head_that_a_model_cannot_have(tiny, pair, message):
    with pytest.raises(ConfigError) as error:
        load(tiny / pair[0], pair[1], LABELS, SINGLE)
    assert str(error.value) == message


def without(tiny, tmp_path, part):
    folder = shutil.copytree(tiny / "bert", tmp_path / "bert")
    weights = load_file(folder / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if part not in name}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("head", [Head.span, Head.label, Head.masked])
def test_weights_of_the_body_are_no_head(tiny, tmp_path, head):
    folder = without(tiny, tmp_path, "layer.1.output.dense")
    with pytest.raises(ModelError, match=r"the weights lack bert\.encoder\.layer\.1\.output\.dense\.bias, .*complete\?"):
        load(folder, head, LABELS if head is Head.label else (), SINGLE if head is Head.label else None)


def test_a_masked_language_model_is_not_made_up(tiny, tmp_path):
    folder = without(tiny, tmp_path, "cls.predictions")
    with pytest.raises(ModelError, match=r"the weights lack cls\..* saved without its masked language model cannot be trained"):
        load(folder, Head.masked)
    assert load(folder, Head.span).new == ("qa_outputs",)


def test_a_body_of_another_size_is_no_head(classifier):
    config = json.loads((classifier / "config.json").read_text())
    (classifier / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    with pytest.raises(ModelError, match="the weights lack bert\\.encoder"):
        load(classifier, Head.label, ("a", "b"), SINGLE)


def test_nothing_is_printed_about_fresh_heads(tiny, capfd, caplog):
    load(tiny / "bert", Head.label, LABELS, SINGLE)
    out, err = capfd.readouterr()
    assert (out, err, caplog.text) == ("", "", "")

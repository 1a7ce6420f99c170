"""Adapters on every head: what is trained, in what number format, and that it comes back as it was."""

import warnings

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, GenerationConfig

from llmft.config.schema import Adapter, AdapterKind
from llmft.errors import ConfigError, ModelError
from llmft.hardware.precision import autocast
from llmft.models.adapter import add_adapter, load_adapter
from llmft.models.export import export
from llmft.models.load import Head, load_pretrained

CPU = torch.device("cpu")
LABELS, SINGLE = ("bad", "fair", "good"), "single_label_classification"


def load(folder, head=Head.text, dtype=torch.float32, labels=LABELS, seed=0):
    torch.manual_seed(seed)
    chosen = (labels, SINGLE) if head is Head.label else ((), None)
    return load_pretrained(folder, dtype, CPU, head, *chosen)


def tuned(folder, head=Head.text, dtype=torch.float32, **options):
    """A model with an adapter as training leaves it: nothing is zero any longer."""
    pretrained = load(folder, head, dtype)
    add_adapter(pretrained, Adapter(name=AdapterKind.lora, r=2, **options))
    torch.manual_seed(1)
    for _, weight in pretrained.trained:
        torch.nn.init.normal_(weight, std=0.2)
    pretrained.model.eval()
    return pretrained


def output(pretrained):
    ids = torch.arange(5, 20)[None]
    ids[0, -1] = 1 if pretrained.model.config.model_type == "t5" else 2  # ends as texts end
    inputs = {"input_ids": ids}
    if pretrained.head is Head.text and pretrained.model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids
    with torch.no_grad():
        found = pretrained.model(**inputs)
    return found.start_logits if pretrained.head is Head.span else found.logits


# The head's weights that are trained in full, without their .modules_to_save.default
CASES = {
    ("bert", Head.label): {"bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"},
    ("roberta", Head.label): {f"classifier.{part}.{kind}" for part in ("dense", "out_proj") for kind in ("weight", "bias")},
    ("llama", Head.label): {"score.weight"},
    ("gpt2", Head.label): {"score.weight"},
    ("t5", Head.label): {f"classification_head.{part}.{kind}" for part in ("dense", "out_proj") for kind in ("weight", "bias")},
    ("bert", Head.span): {"qa_outputs.weight", "qa_outputs.bias"},
    ("bert", Head.masked): set(),
    ("marian", Head.text): set(),
    ("m2m100", Head.text): set(),
    ("t5", Head.text): set(),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "frozen in bfloat16"])
@pytest.mark.parametrize(("pair", "whole"), CASES.items(), ids=[f"{name}, {head.value}" for name, head in CASES])
def test_adapter_and_head_come_back_as_they_were(tiny, tmp_path, pair, whole, dtype):
    name, head = pair
    pretrained = tuned(tiny / name, head, dtype)
    trained = dict(pretrained.trained)
    assert {key.replace(".modules_to_save.default", "") for key in trained if "lora" not in key} == whole
    assert len(trained) > len(whole)
    assert {weight.dtype for weight in trained.values()} == {torch.float32}
    names = {key.split(".lora_")[0] for key in trained if "lora" in key}
    assert not any(key.rpartition(".")[0] in names for key in whole)  # trained in full or by an update, not both
    export(pretrained, tmp_path / "m", GenerationConfig(), {}, merge=False)
    again = load(tiny / name, head, dtype, seed=9)  # another fresh head, to be replaced
    load_adapter(again, tmp_path / "m")
    again.model.eval()
    assert again.new == ()
    assert again.trained == []
    assert torch.equal(output(again), output(pretrained))


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_a_head_in_float32_takes_states_in_bf16(tiny, name):
    for block in (autocast(CPU, torch.bfloat16), autocast(CPU, torch.float32)):
        pretrained = tuned(tiny / name, Head.label, torch.bfloat16)
        with block:
            loss = pretrained.model(torch.arange(5, 20)[None]).logits.float().sum()
        loss.backward()
        assert all(weight.grad is not None and weight.grad.dtype is torch.float32 for _, weight in pretrained.trained)


@pytest.mark.parametrize("name", ["bert", "llama", "bart"])
def test_merged_classifiers_load_by_themselves(tiny, tmp_path, name):
    pretrained = tuned(tiny / name, Head.label)
    state = torch.get_rng_state()
    export(pretrained, tmp_path / "m", GenerationConfig(), {}, merge=True)
    assert torch.equal(torch.get_rng_state(), state)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "m").eval()
    ids = torch.arange(5, 20)[None]
    ids[0, -1] = 2
    with torch.no_grad():
        for each in (model, pretrained.model) if name == "llama" else ():
            each.config.pad_token_id = None  # its end token, at which transformers would not look
        torch.testing.assert_close(model(ids).logits, pretrained.model(ids).logits, rtol=1e-3, atol=1e-3)
    assert list(model.config.id2label.values()) == list(LABELS)
    assert model.config.problem_type == SINGLE


def test_peft_loads_the_classifier_by_itself(tiny, tmp_path):
    pretrained = tuned(tiny / "bert", Head.label)
    export(pretrained, tmp_path / "m", GenerationConfig(), {}, merge=False)
    model = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "m", num_labels=3).eval()
    with torch.no_grad():
        assert torch.equal(model(torch.arange(5, 20)[None]).logits, pretrained.model(torch.arange(5, 20)[None]).logits)


def test_an_adapter_for_other_classes(tiny, tmp_path):
    export(tuned(tiny / "bert", Head.label), tmp_path / "m", GenerationConfig(), {}, merge=False)
    with pytest.raises(ModelError, match="the adapter cannot be put into"):
        load_adapter(load(tiny / "bert", Head.label, labels=("a", "b")), tmp_path / "m")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "frozen in bfloat16"])
@pytest.mark.parametrize("layer", ["embed_tokens", "lm_head"])
def test_tied_embeddings_stay_one(tiny, tmp_path, layer, dtype):
    """Input and output of the tiny Llama are one matrix; trained beside an adapter, they have to stay so, saved and merged."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pretrained = tuned(tiny / "llama", dtype=dtype, modules_to_save=[layer])
    model = pretrained.model
    whole = [name for name, _ in pretrained.trained if "lora" not in name]
    assert whole == ["model.embed_tokens.modules_to_save.default.weight"]
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    before = output(load(tiny / "llama", dtype=dtype))
    assert not torch.allclose(output(pretrained).float(), before.float(), rtol=0.1, atol=1.0)
    export(pretrained, tmp_path / "a", GenerationConfig(), {}, merge=False)
    again = load(tiny / "llama", dtype=dtype)
    load_adapter(again, tmp_path / "a")
    again.model.eval()
    assert torch.equal(output(again), output(pretrained))
    export(pretrained, tmp_path / "m", GenerationConfig(), {}, merge=True)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32).eval()
    assert merged.config.tie_word_embeddings
    found, expected = merged(torch.tensor([[*range(5, 19), 2]])).logits, output(pretrained).float()
    assert (found - expected).norm() / expected.norm() <= (1e-5 if dtype is torch.float32 else 0.1)


def test_lora_on_a_model_with_added_tokens(tiny, tmp_path):
    """The way there: tokens added and the embedding grown before, by transformers; llmft then trains and saves what it got."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny / "llama"), AutoTokenizer.from_pretrained(tiny / "llama")
    tokenizer.add_tokens(["<new>", "<newer>"])
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    pretrained = tuned(tmp_path / "base", modules_to_save=["embed_tokens"])
    export(pretrained, tmp_path / "a", GenerationConfig(), {}, merge=False)
    again = load(tmp_path / "base")
    load_adapter(again, tmp_path / "a")
    again.model.eval()
    ids = again.tokenizer("a <new> fox <newer>", return_tensors="pt").input_ids
    assert len(tokenizer) - 1 in ids
    with torch.no_grad():
        assert torch.equal(again.model(ids).logits, pretrained.model(ids).logits)


@pytest.mark.parametrize(("name", "layer"), [("gpt2", "wte"), ("t5", "shared"), ("bart", "embed_tokens"), ("bart", "lm_head")])
def test_tied_embeddings_that_would_not_stay_one(tiny, name, layer):
    pretrained = load(tiny / name)
    with pytest.raises(ConfigError) as error:
        add_adapter(pretrained, Adapter(name=AdapterKind.lora, modules_to_save=[layer]))
    assert str(error.value) == (
        f"adapter.modules_to_save=['{layer}']: {name} has one embedding for input and output, which cannot be trained in full "
        "beside an adapter. Leave it out, or train all weights (adapter=none)."
    )

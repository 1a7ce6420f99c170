"""Loading: every family by its own class, and what is said where a folder is not whole."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, ViTConfig

from llmft.config.schema import Adapter, AdapterKind
from llmft.errors import ConfigError, ModelError
from llmft.models.adapter import add_adapter, load_adapter
from llmft.models.family import Family, family_of
from llmft.models.load import Head, load_config, load_family, load_pretrained, load_tokenizer
from llmft.models.rounding import narrow

# The class behind conf/model's files, by the tiny model of the same architecture.
PRESETS = {
    "smollm2_135m": ("llama", Family.decoder, "LlamaForCausalLM"),
    "llama3_2_1b": ("llama", Family.decoder, "LlamaForCausalLM"),
    "qwen3_0_6b": ("qwen3", Family.decoder, "Qwen3ForCausalLM"),
    "gpt2": ("gpt2", Family.decoder, "GPT2LMHeadModel"),
    "gpt2_medium": ("gpt2", Family.decoder, "GPT2LMHeadModel"),
    "bert_base": ("bert", Family.encoder, "BertForMaskedLM"),
    "minilm_l6": ("bert", Family.encoder, "BertForMaskedLM"),
    "roberta_base": ("roberta", Family.encoder, "RobertaForMaskedLM"),
    "t5_small": ("t5", Family.encoder_decoder, "T5ForConditionalGeneration"),
    "flan_t5_base": ("t5", Family.encoder_decoder, "T5ForConditionalGeneration"),
    "bart_base": ("bart", Family.encoder_decoder, "BartForConditionalGeneration"),
    "bart_large": ("bart", Family.encoder_decoder, "BartForConditionalGeneration"),
    "opus_mt_en_de": ("marian", Family.encoder_decoder, "MarianMTModel"),
    "mbart50": ("mbart", Family.encoder_decoder, "MBartForConditionalGeneration"),
    "nllb_600m": ("m2m100", Family.encoder_decoder, "M2M100ForConditionalGeneration"),
}
CPU = torch.device("cpu")


@pytest.fixture
def copy(tiny, tmp_path):
    """A copy of the tiny GPT-2 to damage."""
    return shutil.copytree(tiny / "gpt2", tmp_path / "gpt2")


def refused(folder):
    with pytest.raises(ModelError) as error:
        load_pretrained(folder, torch.float32, CPU)
    return str(error.value)


def test_the_presets_are_there(request):
    assert set(PRESETS) <= {path.stem for path in (request.config.rootpath / "conf" / "model").glob("*.yaml")}


@pytest.mark.parametrize(("name", "family", "kind"), PRESETS.values(), ids=PRESETS)
def test_each_family_is_loaded_by_its_class(tiny, name, family, kind):
    assert load_family(tiny / name) is family
    head = Head.masked if family is Family.encoder else Head.text
    found = load_pretrained(tiny / name, torch.float32, CPU, head)
    assert (found.family, type(found.model).__name__, found.new) == (family, kind, ())
    assert found.folder == tiny / name
    saved = load_file(tiny / name / "model.safetensors")
    weights = dict(found.model.named_parameters())
    shared = [key for key in saved if key in weights]
    assert len(shared) >= 20
    assert all(torch.equal(saved[key], weights[key]) for key in shared)


def test_the_context_is_read_from_the_configuration(tiny):
    heads = dict.fromkeys(("llama", "gpt2", "t5", "bart", "m2m100"), Head.text) | dict.fromkeys(
        ("bert", "roberta"), Head.masked
    )
    found = {name: load_pretrained(tiny / name, torch.float32, CPU, head).context for name, head in heads.items()}
    # RoBERTa's table has 514 places, the first two of which no token stands at
    assert found == {"llama": 512, "gpt2": 512, "t5": None, "bart": 512, "m2m100": 512, "bert": 512, "roberta": 512}


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_the_context_is_what_fits(tiny, name):
    found = load_pretrained(tiny / name, torch.float32, CPU, Head.masked)
    ids = torch.full((1, found.context + 1), 7)
    found.model(ids[:, :-1])
    with pytest.raises((IndexError, RuntimeError)):
        found.model(ids)


def test_weights_take_the_dtype_asked_for(tiny):
    model = load_pretrained(tiny / "llama", torch.bfloat16, CPU).model
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


def test_what_was_fine_tuned_from_bfloat16_keeps_it_in_bfloat16(tiny, tmp_path):
    folder = shutil.copytree(tiny / "llama", tmp_path / "llama")
    path = folder / "model.safetensors"
    born = {name: weight.bfloat16().float() for name, weight in load_file(path).items()}
    save_file(born, path, metadata={"format": "pt"})
    pretrained = load_pretrained(folder, torch.float32, CPU)
    with torch.no_grad():
        for weight in pretrained.model.parameters():
            weight *= 1 + 2**-11
    pretrained.model.save_pretrained(folder)
    found = dict(load_pretrained(folder, torch.bfloat16, CPU).model.named_parameters())
    for name, weight in pretrained.model.named_parameters():
        assert torch.equal(found[name], narrow(weight, torch.bfloat16)), name
    assert not torch.equal(found["model.layers.0.mlp.up_proj.weight"], born["model.layers.0.mlp.up_proj.weight"])


def test_no_text_model():
    with pytest.raises(ModelError) as error:
        family_of(ViTConfig())
    assert str(error.value) == (
        "model.name: architecture 'vit' is not a text model that llmft knows; it trains decoders, encoder-decoders and encoders"
    )


def test_bert_as_a_decoder_is_one(tiny):
    config = load_config(tiny / "bert")
    assert family_of(config) is Family.encoder
    config.is_decoder = True
    assert family_of(config) is Family.decoder


def test_no_weights(copy):
    (copy / "model.safetensors").unlink()
    assert refused(copy).startswith(f"{copy}: the model cannot be loaded: ")


def test_weights_cut_short(copy):
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: len(data) // 2])
    assert refused(copy).startswith(f"{copy}/model.safetensors: cannot be loaded: ")


def test_weights_missing(copy):
    weights = load_file(copy / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if ".h.1.mlp." not in name}
    assert len(kept) == len(weights) - 4
    save_file(kept, copy / "model.safetensors", {"format": "pt"})
    assert refused(copy) == (
        f"{copy}: the weights lack transformer.h.1.mlp.c_fc.bias, transformer.h.1.mlp.c_fc.weight, "
        "transformer.h.1.mlp.c_proj.bias ...; is the download complete?"
    )


def test_weights_of_another_size(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"n_embd": 64}))
    assert refused(copy).startswith(f"{copy}: the model cannot be loaded: ")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(copy, bad):
    weights = load_file(copy / "model.safetensors")
    weights["transformer.h.1.mlp.c_fc.weight"][3, 5] = bad
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"transformer\.h\.1\.mlp\.c_fc\.weight holds numbers that are not finite"):
        load_pretrained(copy, torch.float32, CPU)


def test_configuration_that_is_no_json(copy):
    (copy / "config.json").write_text("{")
    assert refused(copy).startswith(f"{copy}/config.json: ")


def test_tokenizer_larger_than_the_embedding(copy):
    tokenizer = AutoTokenizer.from_pretrained(copy)
    before = len(tokenizer)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(copy)
    assert refused(copy) == (
        f"{copy}: the tokenizer has {before + 1} tokens, the embedding {before} rows; they do not belong together"
    )


@pytest.mark.parametrize("name", ["gpt2", "t5", "bert"])
def test_no_vocabulary(tiny, tmp_path, name):
    """transformers makes such a tokenizer up, and every text becomes unknown tokens."""
    folder = shutil.copytree(tiny / name, tmp_path / name, ignore=shutil.ignore_patterns("token*"))
    with pytest.raises(ModelError, match=rf"^{folder}: there is no vocabulary; expected .*tokenizer\.json"):
        load_tokenizer(folder)


@pytest.mark.parametrize("kind", ["GPT2Tokenizer", "PreTrainedTokenizerFast"])
def test_one_file_is_vocabulary_enough(tiny, tmp_path, kind):
    folder = shutil.copytree(tiny / "gpt2", tmp_path / "gpt2", ignore=shutil.ignore_patterns("tokenizer_config*"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    assert load_tokenizer(folder)("fox").input_ids == load_tokenizer(tiny / "gpt2")("fox").input_ids


def test_no_tokenizer(tiny, tmp_path):
    folder = shutil.copytree(tiny / "llama", tmp_path / "llama", ignore=shutil.ignore_patterns("token*"))
    with pytest.raises(ModelError, match=rf"^{folder}: the tokenizer cannot be loaded: "):
        load_tokenizer(folder)


LORA = Adapter(name=AdapterKind.lora, r=2, alpha=6.0)


def test_adapter_trains_low_rank_updates_of_the_linear_layers_alone(tiny):
    found = load_pretrained(tiny / "llama", torch.bfloat16, CPU)
    before = {name: weight.clone() for name, weight in found.model.named_parameters()}
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        plain = found.model(ids).logits
        add_adapter(found, LORA)
        assert torch.equal(found.model.eval()(ids).logits, plain)  # B is zero: nothing has changed yet
    trained = dict(found.trained)
    # 2 layers x (q, k, v, o, gate, up, down) x (A, B); the head is none of them
    assert len(trained) == 2 * 7 * 2
    assert {weight.dtype for weight in trained.values()} == {torch.float32}
    gate = [tuple(trained[f"model.layers.0.mlp.gate_proj.lora_{side}.default.weight"].shape) for side in "AB"]
    assert gate == [(2, 32), (64, 2)]
    frozen = {name.replace(".base_layer", ""): weight for name, weight in found.model.named_parameters() if name not in trained}
    assert frozen.keys() == before.keys()
    assert all(torch.equal(frozen[name], before[name]) for name in before)


def test_adapter_without_layers(tiny):
    found = load_pretrained(tiny / "llama", torch.float32, CPU)
    with pytest.raises(ConfigError, match=r"^adapter\.target_modules=\['c_attn'\]: "):
        add_adapter(found, Adapter(name=AdapterKind.lora, target_modules=["c_attn"]))


def test_adapter_of_another_model(tiny, tmp_path):
    found = load_pretrained(tiny / "llama", torch.float32, CPU)
    add_adapter(found, LORA)
    found.adapter.save_pretrained(tmp_path)
    other = load_pretrained(tiny / "gpt2", torch.float32, CPU)
    with pytest.raises(ModelError, match=r"the adapter cannot be put into .*gpt2: "):
        load_adapter(other, tmp_path)


def test_adapter_damaged(tiny, tmp_path):
    found = load_pretrained(tiny / "llama", torch.float32, CPU)
    add_adapter(found, LORA)
    found.adapter.save_pretrained(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors: cannot be loaded: its header would have 0 bytes"):
        load_adapter(load_pretrained(tiny / "llama", torch.float32, CPU), tmp_path)

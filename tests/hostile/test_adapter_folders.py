"""Adapters that mean harm, and those that name another base model."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from folder_harm import both, change, content, link, remove
from peft import PeftModel
from safetensors.torch import load_file, save_file

from llmft.config.schema import Adapter, AdapterKind
from llmft.errors import ModelError
from llmft.models.adapter import add_adapter, load_adapter
from llmft.models.load import load_pretrained

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture
def adapter(tiny, tmp_path):
    pretrained = load_pretrained(tiny / "gpt2", torch.float32, CPU)
    add_adapter(pretrained, Adapter(name=AdapterKind.lora, r=2))
    pretrained.adapter.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def setting(**values: object) -> Callable[[Path], None]:
    return lambda folder: change(folder, "adapter_config.json", **values)


ADAPTERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a module to import": (setting(megatron_config={"a": 1}, megatron_core="evil"), "megatron_co"),
    "a library to import": (setting(auto_mapping={"base_model_class": "x", "parent_library": "evil"}), "auto_mapping="),
    "another kind": (setting(peft_type="PROMPT_TUNING", tokenizer_name_or_path="owner/x"), "expected LORA"),
    "a kind nobody knows": (setting(peft_type="../evil"), "expected LORA"),
    "layers copied without end": (setting(layer_replication=[[0, 2]] * 9999), "layer_replication="),
    "a pickle of statistics": (
        setting(init_lora_weights="corda", corda_config={"cache_file": "x.pt"}),
        "corda_config=|init_lora",
    ),
    "ranks by pattern": (setting(rank_pattern={"(a+)+$": 10**9}), "rank_pattern="),
    "a huge rank": (setting(r=10**9), "do not belong together"),
    "a rank that is text": (setting(r="16"), "do not belong together"),
    "a dropout that is text": (setting(lora_dropout="x"), "."),
    "no weights but a pickle": (
        both(remove("adapter_model.safetensors"), content("adapter_model.bin", b"cposix\nsystem\n(S'touch $CANARY'\ntR.")),
        "no adapter_model.safetensors",
    ),
    "no settings": (remove("adapter_config.json"), "no adapter_config.json"),
    "settings that are a list": (content("adapter_config.json", "[]"), "expected a JSON object"),
    "weights with a long header": (
        content("adapter_model.safetensors", struct.pack("<Q", 1 << 40) + b"{}"),
        "its header would have",
    ),
    "settings linked to a secret": (link("adapter_config.json", "/etc/hostname"), "outside of the model's folder"),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_hostile_adapter_is_refused(tiny, adapter, canary, name):
    harm, said = ADAPTERS[name]
    harm(adapter)
    pretrained = load_pretrained(tiny / "gpt2", torch.float32, CPU)
    with pytest.raises(ModelError, match=said):
        load_adapter(pretrained, adapter)


@pytest.mark.parametrize(
    "harm",
    [
        setting(base_model_name_or_path="owner/other", revision="main"),
        setting(base_model_name_or_path="/nowhere/at/all"),
        setting(target_modules="(.*a+)+$", exclude_modules="(x+x+)+y"),
        setting(target_modules=["no such layer"]),
    ],
    ids=["base on the hub", "base elsewhere", "a pattern that takes for ever", "other layers"],
)
def test_an_adapter_goes_into_the_model_that_is_given(tiny, adapter, canary, harm):
    ids = torch.arange(3, 40)[None]
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: torch.full_like(each, 0.1) for name, each in weights.items()}, adapter / "adapter_model.safetensors")
    plain = load_pretrained(tiny / "gpt2", torch.float32, CPU)
    expected = PeftModel.from_pretrained(plain.model, adapter).eval()(ids).logits  # as PEFT reads it by itself
    harm(adapter)
    pretrained = load_pretrained(tiny / "gpt2", torch.float32, CPU)
    load_adapter(pretrained, adapter)
    with torch.no_grad():
        assert torch.equal(pretrained.model.eval()(ids).logits, expected)

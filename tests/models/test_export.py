"""The final folder, read by plain PEFT and transformers as anyone would, writes the texts that llmft writes."""

import json

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from llmft.config.schema import Adapter, AdapterKind, Generation
from llmft.errors import ConfigError
from llmft.models.adapter import add_adapter, load_adapter
from llmft.models.export import export
from llmft.models.generate import generate, generation_config
from llmft.models.load import load_pretrained

CPU = torch.device("cpu")
GENERATION = Generation(max_new_tokens=20, batch_size=3)
PROMPTS = ["The quick brown fox", "A function", "Return the first element of a list, or", "Numbers such as 0, 1"]
END = 2


def tuned(tiny, name, lora):
    """A model as training leaves it: full weights moved, or an adapter with B no longer zero."""
    pretrained = load_pretrained(tiny / name, torch.float32, CPU)
    torch.manual_seed(3)
    if lora:
        add_adapter(pretrained, Adapter(name=AdapterKind.lora, r=4))
    for weight_name, weight in pretrained.trained:
        if "lora_A" not in weight_name:
            torch.nn.init.normal_(weight, std=0.3 if lora else 0.2)
    pretrained.model.eval()
    return pretrained


def texts(model, tokenizer, generation):
    """Greedy texts by transformers' own generate, one prompt at a time."""
    found = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            row = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=generation)[0]
        found.append(tokenizer.decode(row[ids.shape[1] :], skip_special_tokens=True))
    return found


def config_of(pretrained):
    return generation_config(GENERATION, pretrained, [END], END)


def own_texts(pretrained):
    ids = [pretrained.tokenizer(prompt).input_ids for prompt in PROMPTS]
    found = dict(generate(pretrained, ids, config_of(pretrained), GENERATION.batch_size, torch.float32))
    return [pretrained.tokenizer.decode(found[place].ids, skip_special_tokens=True) for place in range(len(PROMPTS))]


def test_the_folder_does_not_depend_on_what_the_process_did_before(tiny, tmp_path):
    pretrained = tuned(tiny, "llama", lora=True)
    pretrained.tokenizer("a passage", truncation=True, max_length=3, padding="max_length")
    export(pretrained, tmp_path / "model", None, {}, merge=False)
    saved = json.loads((tmp_path / "model" / "tokenizer.json").read_text())
    assert (saved["truncation"], saved["padding"]) == (None, None)
    # a set is listed in an order that changes with the process's hash seed
    modules = json.loads((tmp_path / "model" / "adapter_config.json").read_text())["target_modules"]
    assert modules == sorted(modules)
    assert len(modules) > 3


@pytest.mark.parametrize("way", ["full", "adapter", "merged"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_folder_loads_by_itself(tiny, tmp_path, name, way):
    pretrained = tuned(tiny, name, lora=way != "full")
    expected = own_texts(pretrained)
    untuned = own_texts(load_pretrained(tiny / name, torch.float32, CPU))
    assert expected != untuned
    folder = tmp_path / "model"
    prompt = {"prompt": "é {source}", "system": None}
    for _ in range(2):  # a run that is resumed after its export writes the folder again
        export(pretrained, folder, config_of(pretrained), prompt, merge=way == "merged")
    assert json.loads((folder / "llmft.json").read_text()) == prompt
    assert own_texts(pretrained) == expected  # the run's own model is not touched
    assert (folder / "adapter_config.json").exists() == (way == "adapter")
    assert (folder / "config.json").exists() == (way != "adapter")
    assert not list(folder.glob("*.bin"))

    loader = AutoPeftModelForCausalLM if way == "adapter" else AutoModelForCausalLM
    model = loader.from_pretrained(folder, dtype=torch.float32).eval()
    found = texts(model, AutoTokenizer.from_pretrained(folder), GenerationConfig.from_pretrained(folder))
    assert found == expected


def test_the_adapter_folder_loads_by_llmft(tiny, tmp_path):
    pretrained = tuned(tiny, "qwen3", lora=True)
    export(pretrained, tmp_path / "m", config_of(pretrained), {}, merge=False)
    again = load_pretrained(tiny / "qwen3", torch.float32, CPU)
    load_adapter(again, tmp_path / "m")
    assert own_texts(again) == own_texts(pretrained)
    assert again.trained == []


def test_merged_weights_are_w_plus_scaled_ba(tiny, tmp_path):
    """Also from a frozen model in bf16: the merged one comes from the float32 weights on disk."""
    pretrained = load_pretrained(tiny / "llama", torch.bfloat16, CPU)
    add_adapter(pretrained, Adapter(name=AdapterKind.lora, r=4, alpha=12.0))
    for name, weight in pretrained.trained:
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    export(pretrained, tmp_path / "m", GenerationConfig(), {}, merge=True)
    trained = dict(pretrained.trained)
    key = "model.layers.1.self_attn.v_proj"
    low, high = (trained[f"{key}.lora_{side}.default.weight"].detach() for side in "AB")
    base = load_file(tiny / "llama" / "model.safetensors")[f"{key}.weight"]
    merged = load_file(tmp_path / "m" / "model.safetensors")[f"{key}.weight"]
    torch.testing.assert_close(merged, base + 12.0 / 4 * high @ low, rtol=1e-5, atol=1e-6)


def test_a_layer_that_is_not_there_is_not_passed_over(tiny):
    pretrained = load_pretrained(tiny / "llama", torch.float32, CPU)
    adapter = Adapter(name=AdapterKind.lora, r=4, modules_to_save=["model.embed_tokens", "lm_hed"])
    with pytest.raises(ConfigError, match=r"^adapter\.modules_to_save: the model has no layer lm_hed\. Did you mean lm_head\?"):
        add_adapter(pretrained, adapter)

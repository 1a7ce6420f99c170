"""GGUF to safetensors: a tiny Llama written as llama.cpp writes it comes back with its own logits and texts."""

import json

import gguf
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmft.errors import ModelError
from llmft.models.convert import convert_gguf
from llmft.runs import durable

LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def interleaved(weight, num_heads):
    """The order in which llama.cpp keeps the rows of q and k: its rotary positions turn neighbours, not halves."""
    rows, width = weight.shape
    return weight.reshape(num_heads, 2, rows // num_heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def write_gguf(path, model, tokenizer):
    """Write model and tokenizer in float32, by the field names of the GGUF specification."""
    config, weights = model.config, {name: weight.numpy() for name, weight in model.state_dict().items()}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in vocabulary])  # 3: control
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(tokenizer.chat_template)
    writer.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", weights["model.norm.weight"])
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for layer in range(config.num_hidden_layers):
        for short, long in LAYER.items():
            weight = weights[f"model.layers.{layer}.{long}.weight"]
            weight = interleaved(weight, heads[short]) if short in heads else weight
            writer.add_tensor(f"blk.{layer}.{short}.weight", weight.copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_the_model_comes_back_as_it_was(tiny, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tiny / "llama", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tiny / "llama")
    write_gguf(tmp_path / "m.gguf", model, tokenizer)
    target = tmp_path / "models" / "m"
    convert_gguf(tmp_path, "m.gguf", target)
    assert not durable.verify(target)

    found, report = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"]
    again = AutoTokenizer.from_pretrained(target)
    text = "The quick brown fox, 東京 <|im_end|>"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert again(text, add_special_tokens=False).input_ids == ids
    assert again.chat_template == tokenizer.chat_template
    with torch.no_grad():
        torch.testing.assert_close(found(torch.tensor([ids])).logits, model(torch.tensor([ids])).logits, rtol=1e-5, atol=1e-5)
    ends = found.generation_config
    assert (ends.bos_token_id, ends.eos_token_id, ends.pad_token_id) == (1, 2, 2)
    assert "quantization_config" not in json.loads((target / "config.json").read_text())


def test_without_the_reader(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise ImportError("Please install gguf")

    monkeypatch.setattr("llmft.models.convert.AutoTokenizer.from_pretrained", refuse)
    with pytest.raises(ModelError) as error:
        convert_gguf(tmp_path, "w.gguf", tmp_path / "out")
    assert str(error.value) == (
        f"{tmp_path}/w.gguf: reading GGUF weights needs the package gguf: pip install 'llmft[gguf]' (Please install gguf)"
    )
    assert not (tmp_path / "out").exists()

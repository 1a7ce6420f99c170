"""Model folders that mean harm, by name: those that are refused, with what is said, and those in which it plays no part."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from folder_harm import (
    both,
    config,
    content,
    evil,
    fifo,
    generation,
    link,
    remove,
    safetensors,
    tensors,
    tokenizer,
    vocabulary,
    with_code,
    words,
)

DEEP = '{"a":' * 20_000 + "1" + "}" * 20_000
ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
BIG = [10**9, 10**9]

REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    # code
    "auto_map of an unknown architecture": (with_code(AutoConfig="evil.C", AutoModelForCausalLM="evil.M"), "which is not run"),
    "auto_map of the model alone": (with_code(AutoModelForCausalLM="evil.M"), "which is not run"),
    "auto_map of another repository": (config(auto_map={"AutoConfig": "owner/repo--evil.C"}), "code of another repository"),
    "auto_map of a tokenizer elsewhere": (
        words(auto_map={"AutoTokenizer": ["a/b--evil.T", None]}),
        "code of another repository",
    ),
    "auto_map that is text": (
        both(config(model_type="x", auto_map="evil.C"), content("evil.py", evil())),
        "not run|model_type",
    ),
    "auto_map that is a list": (both(config(model_type="x", auto_map=["evil.C"]), content("evil.py", evil())), "not run"),
    "a kernel for attention": (config(attn_implementation="owner/kernel"), "names code to fetch"),
    "a kernel for attention, private": (config(_attn_implementation="owner/kernel@main:f"), "names code to fetch"),
    "a kernel deep inside": (config(text_config={"attn_implementation": {"": "owner/kernel"}}), "names code to fetch"),
    "a kernel for experts": (config(experts_implementation="owner/kernel"), "names code to fetch"),
    "quantised": (config(quantization_config={"quant_method": "finegrained_fp8"}), "quantised"),
    "quantised by a stranger": (config(quantization_config={"quant_method": "evil", "modules": ["os"]}), "quantised"),
    "an adapter beside the model": (
        content("adapter_config.json", '{"base_model_name_or_path": "owner/other"}'),
        "an adapter lies",
    ),
    "an adapter alone": (
        both(content("adapter_config.json", '{"base_model_name_or_path": "owner/other"}'), remove("config.json")),
        "an adapter, not a whole model",
    ),
    # weights
    "pickled weights alone": (
        both(remove("model.safetensors"), content("pytorch_model.bin", pickle.dumps([1]))),
        "model.convert_pickle=true",
    ),
    "no weights": (remove("model.safetensors"), "there are no safetensors"),
    "an index that leads out": (
        content("model.safetensors.index.json", '{"weight_map": {"a": "../../x.safetensors"}}'),
        "leads out of the folder",
    ),
    "an index to a root path": (
        content("model.safetensors.index.json", '{"weight_map": {"a": "/etc/passwd"}}'),
        "leads out of the folder",
    ),
    "an index to nothing": (
        content("model.safetensors.index.json", '{"weight_map": {"a": "b.safetensors"}}'),
        "none of the folder",
    ),
    "an index without a map": (content("model.safetensors.index.json", "{}"), "no weight_map"),
    "an index of numbers": (content("model.safetensors.index.json", '{"weight_map": {"a": 3}}'), "no weight_map"),
    "an index that is a list": (content("model.safetensors.index.json", "[]"), "expected a JSON object"),
    "a header of 2^63 bytes": (safetensors({}, 1 << 63), "its header would have"),
    "a header of 99 GB": (safetensors({}, 99 << 30), "its header would have"),
    "a header longer than the file": (safetensors({"a": ENTRY}, 10_000), "its header would have"),
    "an empty file": (content("model.safetensors", b""), "its header would have 0 bytes"),
    "seven bytes": (content("model.safetensors", b"\0" * 7), "its header would have 0 bytes"),
    "a header that is no JSON": (safetensors(b"{" * 100), "cannot be loaded"),
    "a header nested deep": (safetensors(DEEP.encode()), "cannot be loaded"),
    "a header that is a list": (safetensors([1]), "cannot be loaded"),
    "a name twice": (safetensors(b'{"a":%b,"a":%b}' % ((json.dumps(ENTRY).encode(),) * 2), None, b"\0" * 4), "stands twice"),
    "tensors that overlap": (safetensors({"a": ENTRY, "b": ENTRY}, None, b"\0" * 4), "cannot be loaded"),
    "a hole between tensors": (
        safetensors({"a": ENTRY, "b": ENTRY | {"data_offsets": [8, 12]}}, None, b"\0" * 12),
        "cannot be loaded",
    ),
    "an offset behind the end": (
        safetensors({"a": ENTRY | {"data_offsets": [0, 1 << 40]}}, None, b"\0" * 4),
        "cannot be loaded",
    ),
    "a negative offset": (safetensors({"a": ENTRY | {"data_offsets": [-4, 0]}}, None, b"\0" * 4), "cannot be loaded"),
    "a shape too large": (safetensors({"a": ENTRY | {"shape": BIG}}, None, b"\0" * 4), "cannot be loaded"),
    "a negative shape": (safetensors({"a": ENTRY | {"shape": [-1]}}, None, b"\0" * 4), "cannot be loaded"),
    "an unknown format": (safetensors({"a": ENTRY | {"dtype": "EVIL"}}, None, b"\0" * 4), "cannot be loaded"),
    "a tensor of another shape": (
        tensors(lambda all: all | {"transformer.ln_f.weight": torch.ones(31)}),
        "the model cannot be loaded: ",
    ),
    "whole numbers for weights": (
        tensors(lambda all: all | {"transformer.ln_f.weight": torch.ones(32, dtype=torch.int64)}),
        "is of I64; expected F64",
    ),
    "truth values for weights": (
        tensors(lambda all: all | {"transformer.ln_f.bias": torch.ones(32, dtype=torch.bool)}),
        "is of BOOL; expected F64",
    ),
    # sizes
    "hidden_size of 10^9": (config(n_embd=10**9), "do not belong together"),
    "vocab_size of 10^12": (config(vocab_size=10**12), "do not belong together"),
    "10^9 layers": (config(n_layer=10**9), "do not belong together"),
    "10^12 positions": (config(n_positions=10**12), "expected at most"),
    "10^9 classes": (config(num_labels=10**9), "expected at most"),
    "10^6 heads": (config(n_head=10**6), "do not belong together"),
    "no heads": (config(n_head=0), "."),
    "a negative size": (config(n_embd=-5), "."),
    "a size that is text": (config(n_embd="32; import os"), "."),
    "a size that is a list": (config(n_embd=[32]), "."),
    "an activation that is code": (config(activation_function="__import__('os').system"), "."),
    "a dropout of 7": (config(resid_pdrop=7.0), "."),
    # settings
    "config.json that is a list": (content("config.json", "[]"), "expected a JSON object"),
    "config.json nested deep": (content("config.json", DEEP), "nested deeper|recursion|not JSON"),
    "config.json that is no UTF-8": (content("config.json", b"\xff\xfe{\0}\0"), "codec"),
    "config.json without a type": (content("config.json", "{}"), "model_type"),
    "config.json of an unknown type": (config(model_type="../../etc/passwd"), "."),
    "a type that is a number": (config(model_type=7), "."),
    "config.json is a pipe": (fifo("config.json"), "holds no config.json"),
    "tokenizer.json is a pipe": (fifo("tokenizer.json"), "neither a file nor a folder"),
    "a template linked to a secret": (link("chat_template.jinja", "/etc/hostname"), "outside of the model's folder"),
    "settings linked to a secret": (link("tokenizer_config.json", "/etc/hostname"), "outside of the model's folder"),
    "a link up and out": (link("merges.txt", "../../../../../../../../etc/hostname"), "outside of the model's folder"),
    "weights linked to nothing": (link("model.safetensors", "/nowhere/model.safetensors"), "which is not there"),
    "weights linked to another file": (link("model.safetensors", "/etc/hostname"), "its header would have"),
    "a link to itself": (link("config.json", "config.json"), "."),
    # token ids
    "a token too many": (vocabulary(lambda all: all | {"evil": 10**6}), "the tokenizer has 401 tokens"),
    "a token behind the embedding": (vocabulary(lambda all: all | {max(all, key=all.get): 10**6}), "has the id 1000000"),
    "pad behind the vocabulary": (config(pad_token_id=10**6), "pad_token_id=1000000"),
    "end behind the vocabulary": (config(eos_token_id=10**6), "eos_token_id names the token 1000000"),
    "a list of ends, one behind": (generation(eos_token_id=[0, 10**6]), "eos_token_id names the token 1000000"),
    "a negative end": (generation(eos_token_id=-7), "eos_token_id names the token -7"),
    "a forced beginning behind": (generation(forced_bos_token_id=10**6), "forced_bos_token_id names the token 1000000"),
    "a start of decoding behind": (generation(decoder_start_token_id=10**6), "decoder_start_token_id names"),
    "bad words behind": (generation(bad_words_ids=[[1, 10**6]]), "bad_words_ids names the token 1000000"),
    "suppressed tokens behind": (generation(suppress_tokens=[10**6]), "suppress_tokens names the token 1000000"),
    "an end that is text": (generation(eos_token_id="evil"), "."),
    # tokenizers
    "tokenizer.json that is no JSON": (content("tokenizer.json", "{"), "."),
    "tokenizer.json that is empty": (content("tokenizer.json", "{}"), "."),
    "tokenizer.json of another kind": (tokenizer(model={"type": "Evil"}), "."),
    "tokenizer.json without a vocabulary": (tokenizer(model={"type": "BPE", "vocab": {}, "merges": []}), "."),
    "merges of unknown words": (
        tokenizer(model={"type": "BPE", "vocab": {"a": 0}, "merges": [["x", "y"]]}),
        ".",
    ),
    "a broken regular expression": (
        tokenizer(pre_tokenizer={"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": False}),
        ".",
    ),
    "a broken normalizer": (tokenizer(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}), "."),
    "a special token that is a number": (words(eos_token=7), "."),
}

ACCEPTED: dict[str, Callable[[Path], None]] = {
    "code for an architecture that transformers has": both(
        config(auto_map={"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}), content("evil.py", evil())
    ),
    "code for a tokenizer that transformers has": both(
        words(auto_map={"AutoTokenizer": ["evil.T", "evil.T"]}, tokenizer_class="GPT2Tokenizer"), content("evil.py", evil())
    ),
    "code for a tokenizer that nobody knows": both(
        words(tokenizer_class="EvilTokenizer", auto_map={"AutoTokenizer": ["evil.T", None]}), content("evil.py", evil())
    ),
    "decoding of its own": both(
        lambda folder: (folder / "custom_generate").mkdir(), content("custom_generate/generate.py", evil())
    ),
    "decoding named in its settings": generation(custom_generate="owner/repo", trust_remote_code=True),
    "trust in its own settings": both(
        config(trust_remote_code=True, custom_pipelines={"x": {"impl": "evil.P"}}), content("evil.py", evil())
    ),
    "modules with telling names": both(
        *(content(name, evil()) for name in ("__init__.py", "sitecustomize.py", "torch.py", "conftest.py"))
    ),
    "a pickle beside the safetensors": content("pytorch_model.bin", b"cposix\nsystem\n(S'touch $CANARY'\ntR."),
    "other pickles": both(
        *(
            content(name, b"cposix\nsystem\n(S'touch $CANARY'\ntR.")
            for name in ("training_args.bin", "optimizer.pt", "vocab.pkl")
        )
    ),
    "a vocabulary named elsewhere": words(
        vocab_file="/etc/hostname", tokenizer_file="/etc/hostname", merges_file="/etc/hostname"
    ),
    "another name for itself": config(_name_or_path="owner/other"),
    "a negative pad": config(pad_token_id=-1),
    "settings nobody knows": config(evil="__import__('os').system('touch $CANARY')", architectures=["os.system"]),
}

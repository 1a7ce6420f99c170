"""GGUF weights, as some packages carry them, to a plain folder of safetensors that every tool loads."""

import os
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from llmft.errors import ModelError
from llmft.runs.durable import directory


def convert_gguf(source: Path, file: str, target: Path) -> None:
    """Dequantise `source`/`file` to float32 and write model, tokenizer, chat template and generation config to `target`.

    Atomic: `target` appears whole or not at all. Raises ModelError where the gguf reader is not installed.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file)
        model = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.float32)
    except ImportError as error:
        raise ModelError(
            f"{source / file}: reading GGUF weights needs the package gguf: pip install 'llmft[gguf]' ({error})"
        ) from error
    config = model.config
    # A model loaded from GGUF counts as quantised and refuses to be saved: carry its values over into a plain one.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(model.state_dict())
    plain.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with directory(target) as folder:
            plain.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except OSError:
        if not os.path.isdir(target):  # another process may have converted it meanwhile; then its copy serves
            raise

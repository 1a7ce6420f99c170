"""The final model as a folder that transformers and PEFT load by themselves."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import GenerationConfig

from llmft.errors import ModelError
from llmft.models.head import Head, own_labels
from llmft.models.load import Pretrained, load_pretrained
from llmft.runs import durable


def export(
    pretrained: Pretrained, folder: Path, generation: GenerationConfig | None, prompt: dict[str, object], merge: bool
) -> None:
    """Write the model (the adapter alone, or merged into the weights), tokenizer, generation config and prompt settings.

    A folder that is there already, from a run that was stopped later on, is replaced.
    """
    with durable.replacement(folder) as new:
        if pretrained.adapter is None:
            pretrained.model.save_pretrained(new)
        elif not merge:
            save_adapter(pretrained, new)
        else:
            save_merged(pretrained, new)
        save_tokenizer(pretrained.tokenizer, new)
        if generation is not None:  # one that does not write text has none
            generation.save_pretrained(new)
        (new / "llmft.json").write_text(json.dumps(prompt, indent=2, ensure_ascii=False))


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write the tokenizer as it was loaded: a fast one keeps, and would save, the limits of its last text.

    How llmft reads rows (task.control_tokens) is no property of it either.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    reading = tokenizer.split_special_tokens
    tokenizer.split_special_tokens = bool(tokenizer.init_kwargs.get("split_special_tokens"))
    try:
        tokenizer.save_pretrained(folder)
    finally:
        tokenizer.split_special_tokens = reading


def save_adapter(pretrained: Pretrained, folder: Path) -> None:
    """Write the adapter in PEFT's format; its base model is named by the folder it was loaded from."""
    config = pretrained.adapter.peft_config["default"]
    if isinstance(config.target_modules, set):  # which every process would write in another order
        config.target_modules = sorted(config.target_modules)
    config.base_model_name_or_path = str(pretrained.folder.resolve())
    pretrained.adapter.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card; the run has one that says something


def save_merged(pretrained: Pretrained, folder: Path) -> None:
    """Write whole weights W + (alpha/r) BA in float32, from a second copy: the run's own may be frozen in bf16."""
    from llmft.models.adapter import load_adapter  # here: peft takes its time to import, and only this needs it

    config = pretrained.model.config
    labels, problem = (own_labels(config), config.problem_type) if pretrained.head is Head.label else ([], None)
    cpu = torch.device("cpu")
    # a copy draws random weights before the saved ones take their place; the run's own draws are to go on as before
    # In `folder`, which goes when this process dies in the middle.
    with TemporaryDirectory(dir=folder) as scratch, torch.random.fork_rng(devices=[]):
        save_adapter(pretrained, Path(scratch))
        whole = load_pretrained(pretrained.folder, torch.float32, cpu, pretrained.head, labels, problem, pretrained.code)
        load_adapter(whole, Path(scratch))
    merged = whole.adapter.merge_and_unload(safe_merge=True)
    if not all(torch.isfinite(weight).all() for weight in merged.parameters()):
        raise ModelError(f"{folder}: merging the adapter gave weights that are not finite")
    merged.save_pretrained(folder)

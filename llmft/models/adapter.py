"""LoRA adapters, in PEFT's configuration and file format."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from safetensors import SafetensorError

from llmft.config.explain import suggest
from llmft.config.schema import Adapter
from llmft.errors import ConfigError, ModelError
from llmft.models.family import Family
from llmft.models.load import Pretrained

TASK_TYPES = {
    Family.decoder: TaskType.CAUSAL_LM,
    Family.encoder_decoder: TaskType.SEQ_2_SEQ_LM,
    Family.encoder: TaskType.FEATURE_EXTRACTION,
}


def add_adapter(pretrained: Pretrained, adapter: Adapter) -> None:
    """Freeze the model and put trainable low-rank updates W + (alpha/r) BA beside its linear layers (arXiv:2106.09685).

    The adapter's weights are float32 whatever the frozen weights are. Raises ConfigError if no layer has a name given.
    """
    layers = [name for name, _ in pretrained.model.named_modules()]
    ends = tuple(f".{name}" for name in layers)
    if unknown := [name for name in adapter.modules_to_save if not any(end.endswith(f".{name}") for end in ends)]:
        near = suggest(unknown[0], {name.rpartition(".")[2] for name in layers})  # PEFT passes over unknown ones in silence
        raise ConfigError(f"adapter.modules_to_save: the model has no layer {unknown[0]}.{near} Correct or leave it out.")
    config = LoraConfig(
        r=adapter.r,
        lora_alpha=adapter.alpha,  # type: ignore[arg-type]  # PEFT divides by r, so it need not be whole
        lora_dropout=adapter.dropout,
        target_modules=adapter.target_modules,
        modules_to_save=adapter.modules_to_save or None,
        task_type=TASK_TYPES[pretrained.family],
    )
    try:
        with without_warnings():
            pretrained.adapter = get_peft_model(pretrained.model, config)
    except ValueError as error:
        raise ConfigError(f"adapter.target_modules={adapter.target_modules}: {error}") from error


def load_adapter(pretrained: Pretrained, folder: Path, trainable: bool = False) -> None:
    """Put the adapter saved in `folder` into a model. Raises ModelError if it does not fit."""
    try:
        with without_warnings():
            pretrained.adapter = PeftModel.from_pretrained(pretrained.model, folder, is_trainable=trainable)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(f"{folder}: the adapter cannot be put into {pretrained.folder}: {error}") from error


@contextmanager
def without_warnings() -> Iterator[None]:
    """Keep back what PEFT warns of and no user can act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it asks transformers for an attribute under its old name
        warnings.filterwarnings("ignore", "fan_in_fan_out")  # it sees by itself that GPT-2's weights are transposed
        yield


def base_of(folder: Path) -> str:
    """Return the name of the model that the adapter in `folder` belongs to."""
    config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text())
    return str(config["base_model_name_or_path"])

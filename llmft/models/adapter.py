"""LoRA adapters, in PEFT's configuration and file format."""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model, load_peft_weights, set_peft_model_state_dict
from peft.utils import ModulesToSaveWrapper
from transformers import PreTrainedModel

from llmft.config.explain import suggest
from llmft.config.schema import Adapter
from llmft.errors import ConfigError, ModelError
from llmft.models.family import Family
from llmft.models.folder import check_files, read_header, read_settings
from llmft.models.head import FRESH, Head, head_modules
from llmft.models.load import Pretrained, refused

TASK_TYPES = {
    Head.text: {Family.decoder: TaskType.CAUSAL_LM, Family.encoder_decoder: TaskType.SEQ_2_SEQ_LM},
    Head.masked: {Family.encoder: TaskType.FEATURE_EXTRACTION},
    Head.span: dict.fromkeys(Family, TaskType.QUESTION_ANS),
    Head.label: dict.fromkeys(Family, TaskType.SEQ_CLS),
}

WEIGHTS = "adapter_model.safetensors"
OURS = ("r", "lora_alpha", "lora_dropout", "modules_to_save", "task_type", "ensure_weight_tying", "fan_in_fan_out", "bias")
"""Settings of PEFT's that decide what an adapter computes, and that llmft writes."""
SAID = (
    "target_modules",
    "exclude_modules",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "peft_type",
    "peft_version",
)
"""Others that it writes, which say nothing that the weights and the run do not say."""


def add_adapter(pretrained: Pretrained, adapter: Adapter, fixed: Sequence[str] = ()) -> None:
    """Freeze the model and put trainable low-rank updates W + (alpha/r) BA beside its linear layers (arXiv:2106.09685).

    fixed: names of all modules that stay as they are. Raises ConfigError where one of them would be trained.

    A span or label head is trained in full and saved with the adapter: it may be random. What is trained is float32 whatever
    the frozen weights are. Raises ConfigError if no layer has a name given.
    """
    model = pretrained.model
    whole, tied = layers_in_full(pretrained, adapter)
    without = [*(rf"(.*\.)?{re.escape(name)}(\..*)?" for name in whole), *map(re.escape, fixed)]
    config = LoraConfig(
        r=adapter.r,
        lora_alpha=adapter.alpha,  # type: ignore[arg-type]  # PEFT divides by r, so it need not be whole
        lora_dropout=adapter.dropout,
        target_modules=adapter.target_modules,
        # of a layer that is trained in full, nothing gets an update besides
        exclude_modules="|".join(without) or None,
        modules_to_save=whole or None,
        ensure_weight_tying=tied,
        task_type=TASK_TYPES[pretrained.head][pretrained.family],
    )
    try:
        with without_warnings():
            pretrained.adapter = get_peft_model(model, config)
    except ValueError as error:
        less = (
            f" adapter.frozen_layers={adapter.frozen_layers} leaves no others; set it lower, or adapter=none." if fixed else ""
        )
        raise ConfigError(f"adapter.target_modules={adapter.target_modules}: {error}{less}") from error
    # only now it is known what all the names, and those of tied weights, have caught
    for name, _ in pretrained.trained:
        module = name.replace("modules_to_save.default.", "").rpartition(".")[0]
        if module in fixed:
            raise ConfigError(
                f"adapter.modules_to_save={whole}: {module} would be trained, and adapter.frozen_layers={adapter.frozen_layers} keeps "
                "it as it is. Leave one of them out."
            )
    train_in_float32(model)


def layers_in_full(pretrained: Pretrained, adapter: Adapter) -> tuple[list[str], bool]:
    """Return the names of the layers that are trained in full, and whether an embedding that is input and output is among them.

    Raises ConfigError for a name that no layer has, and for such an embedding where PEFT would make two of it.
    """
    model = pretrained.model
    layers = [name for name, _ in model.named_modules()]
    ends = tuple(f".{name}" for name in layers)
    if unknown := [name for name in adapter.modules_to_save if not any(end.endswith(f".{name}") for end in ends)]:
        near = suggest(unknown[0], {name.rpartition(".")[2] for name in layers})  # PEFT passes over unknown ones in silence
        raise ConfigError(f"adapter.modules_to_save: the model has no layer {unknown[0]}.{near} Correct or leave it out.")
    whole = sorted({*adapter.modules_to_save, *pretrained.new, *(head_modules(model) if pretrained.head in FRESH else ())})
    tied = embedding_names(model)
    if tied.intersection(name.rpartition(".")[2] for name in whole):
        if pretrained.family is not Family.decoder or "embed_tokens" not in tied:  # PEFT ties no others again
            raise ConfigError(
                f"adapter.modules_to_save={adapter.modules_to_save}: {model.config.model_type} has one embedding for input and output, "
                "which cannot be trained in full beside an adapter. Leave it out, or train all weights (adapter=none)."
            )
        return sorted({*whole, *tied}), True  # trained apart, input and output would be one no longer
    return whole, False


def load_adapter(pretrained: Pretrained, folder: Path, trainable: bool = False) -> None:
    """Put the adapter saved in `folder` into a model. Raises ModelError if it does not fit, or is none that llmft trains.

    Which model the folder says it belongs to plays no part: it goes into the one that is given, and nothing is fetched.
    """
    config = read_config(folder, trainable)
    try:
        with refused(f"{folder}: the adapter cannot be put into {pretrained.folder}"), without_warnings():
            pretrained.adapter = PeftModel.from_pretrained(pretrained.model, folder, is_trainable=trainable, config=config)
            if train_in_float32(pretrained.model):  # what was read so far lost its digits on the way
                set_peft_model_state_dict(pretrained.adapter, load_peft_weights(str(folder), device="cpu"))
    except MemoryError as error:
        raise ModelError(f"{folder}: the adapter asks for more memory than there is") from error
    saved = set(pretrained.adapter.peft_config["default"].modules_to_save or ())
    pretrained.new = tuple(name for name in pretrained.new if name not in saved)


def read_config(folder: Path, trainable: bool) -> LoraConfig:
    """Return the configuration of the adapter in `folder`, with the layers that its weights are for. Raises ModelError.

    Only what llmft writes is read: other settings of PEFT's import modules, fetch files, or copy layers without end. Layers
    are named by the weights and not by a pattern, since a pattern can take for ever to match.
    """
    path = folder / "adapter_config.json"
    if not path.is_file() or not (folder / WEIGHTS).is_file():
        raise ModelError(
            f"{folder}: no {path.name if not path.is_file() else WEIGHTS}; expected an adapter as llmft train writes it."
        )
    check_files(folder)
    found = read_settings(path)
    if found.get("peft_type") != "LORA":
        raise ModelError(f"{path}: peft_type={found.get('peft_type')!r}; expected LORA, which is what llmft trains.")
    usual = LoraConfig().to_dict()
    for name, value in found.items():
        if name not in (*OURS, *SAID) and name in usual and value not in (usual[name], None, False, [], {}):
            raise ModelError(
                f"{path}: {name}={value!r}, which llmft does not write. Set it to null, or train the adapter anew."
            )
    tensors = read_header(folder / WEIGHTS)
    layers = {name.removeprefix("base_model.model.").rpartition(".lora_")[0] for name in tensors}
    ranks = {shape[:1] for name, (_, shape) in tensors.items() if re.search(r"\.lora_(embedding_)?A(\.|$)", name)}
    given = {name: found[name] for name in OURS if found.get(name) is not None}
    if ranks and ranks != {(given.get("r"),)}:
        raise ModelError(f"{path}: r={given.get('r')!r}, the weights are of rank {sorted(ranks)}. They do not belong together.")
    with refused(str(path)):
        return LoraConfig(**given, target_modules=sorted(layers - {""}), inference_mode=not trainable)


def embedding_names(model: PreTrainedModel) -> set[str]:
    """Return the last parts of the names of an embedding that is input and output; none where these are two."""
    shared, output = model.get_input_embeddings().weight, model.get_output_embeddings()
    if output is None or output.weight is not shared:
        return set()
    return {name.rpartition(".")[2] for name, module in model.named_modules() if getattr(module, "weight", None) is shared}


def train_in_float32(model: PreTrainedModel) -> bool:
    """Keep layers that are trained in full in float32, whatever stands around them; return whether one was not.

    Low-rank updates PEFT keeps so by itself. Such a layer then takes any format; an embedding gives back what the next takes.
    """
    changed = False
    for module in model.modules():
        if not isinstance(module, ModulesToSaveWrapper):
            continue
        frozen = next(module.original_module.parameters()).dtype
        if frozen is torch.float32:
            continue
        changed = True
        module.modules_to_save.float()
        module.register_forward_pre_hook(
            lambda _, given: tuple(each.float() if each.is_floating_point() else each for each in given)
        )
        if isinstance(module.original_module, torch.nn.Embedding):
            module.register_forward_hook(lambda _, given, found, dtype=frozen: found.to(dtype))
    return changed


@contextmanager
def without_warnings() -> Iterator[None]:
    """Keep back what PEFT warns of and no user can act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it asks transformers for an attribute under its old name
        warnings.filterwarnings("ignore", "fan_in_fan_out")  # it sees by itself that GPT-2's weights are transposed
        yield

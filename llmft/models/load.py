"""From a local folder to a tokenizer and a model of one of the three families, weights checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from llmft.errors import ModelError
from llmft.models.family import Family, family_of

logging.disable_progress_bar()  # loading has no steps a user could tell apart; stderr is for what llmft does

LOADERS = {Family.decoder: AutoModelForCausalLM, Family.encoder_decoder: AutoModelForSeq2SeqLM, Family.encoder: AutoModel}


@dataclass
class Pretrained:
    """A model with its tokenizer, as they came from `folder`.

    `model` is transformers' own class, also when an adapter was put into it; `adapter` is PEFT's view of the same
    model, for saving, or None.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    family: Family
    folder: Path
    adapter: Any = None

    @property
    def context(self) -> int | None:
        """Longest document in tokens, None where the architecture sets no limit."""
        config = self.model.config
        return getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)

    @property
    def trained(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Names and tensors of the weights that training changes."""
        return [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of `folder`; raises ModelError if it cannot be read."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"{folder}: the tokenizer cannot be loaded: {error}") from error
    # without its files transformers makes some tokenizers (GPT-2, T5, BERT) up: a few special tokens, nothing else
    files = sorted({"tokenizer.json", *tokenizer.vocab_files_names.values()} - {"tokenizer_config.json"})
    if tokenizer.vocab_files_names and not any((folder / file).is_file() for file in files):  # ByT5 needs no file
        raise ModelError(
            f"{folder}: there is no vocabulary; expected {' or '.join(files)}. Is the folder complete? save_pretrained writes "
            "the tokenizer's files too."
        )
    return tokenizer


def load_family(folder: Path) -> Family:
    """Read the model's family from its config.json alone."""
    try:
        return family_of(AutoConfig.from_pretrained(folder))
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder}/config.json: {error}") from error


def load_pretrained(folder: Path, dtype: torch.dtype, device: torch.device) -> Pretrained:
    """Load model and tokenizer from a folder of safetensors.

    Raises ModelError where files are missing or damaged, where weights the architecture needs are not in them (they
    would be random), or where the tokenizer writes ids that the embedding does not have.
    """
    family = load_family(folder)
    tokenizer = load_tokenizer(folder)
    try:
        model, report = LOADERS[family].from_pretrained(folder, dtype=dtype, use_safetensors=True, output_loading_info=True)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(f"{folder}: the model cannot be loaded: {error}") from error
    missing = sorted(report["missing_keys"])
    if missing and family is not Family.encoder:  # an encoder's pooler is not always saved, and not always used
        raise ModelError(
            f"{folder}: the weights lack {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}; is the download complete?"
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, the embedding {rows} rows; they do not belong together"
        )
    return Pretrained(model.to(device), tokenizer, family, folder)

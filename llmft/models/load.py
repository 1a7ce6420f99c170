"""From a local folder to a tokenizer and a model of one of the three families, weights checked."""

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from llmft.errors import DoesNotFit, LlmftError, ModelError
from llmft.hardware.finite import first_not_finite
from llmft.hardware.limits import refused_beyond
from llmft.hardware.memory import available_bytes, is_out_of_memory
from llmft.models.family import Family, family_of
from llmft.models.folder import Weights, check_folder, check_formats, no_safetensors
from llmft.models.frozen import Frozen
from llmft.models.head import FRESH, Head, class_of, head_modules, label_settings, make_fresh, module_of
from llmft.models.rounding import mark_coarse, to_16_bits
from llmft.models.token_ids import check_ids, settle_padding

logging.disable_progress_bar()  # loading has no steps a user could tell apart; stderr is for what llmft does

LONGEST_REASON = 600
"""Characters of what a library says about a folder it cannot load; some of it is the folder's own."""
BESIDE_BYTES = 4 << 30
"""Memory that loading may take beside the weights: libraries, the tokenizer, and what is drawn for a new head."""


@dataclass
class Pretrained:
    """A model with its tokenizer, as they came from `folder`.

    `model` is transformers' own class, also when an adapter was put into it; `adapter` is PEFT's view of the same
    model, for saving, or None. `new` names the modules of the head whose weights are random, not read from `folder`.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    family: Family
    folder: Path
    head: Head = Head.text
    new: tuple[str, ...] = ()
    adapter: Any = None
    code: bool = False
    """Whether the Python that came with the model was trusted, and is run."""
    frozen: Frozen | None = None
    """Its lowest layers that are not trained; None: there are none."""

    @cached_property
    def context(self) -> int | None:
        """Longest document in tokens, of an encoder-decoder each of source and target; None where there is no limit."""
        positions = getattr(self.model.config, "max_position_embeddings", None)
        if positions:
            for module in self.model.modules():
                table = getattr(module, "position_embeddings", None)
                if isinstance(table, torch.nn.Embedding) and table.padding_idx is not None:
                    return positions - table.padding_idx - 1  # RoBERTa counts from behind the pad token's place
        return positions

    @property
    def trained(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Names and tensors of the weights that training changes."""
        return [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]


@contextmanager
def refused(where: str) -> Iterator[None]:
    """Turn whatever a library raises about a model's files into a ModelError: they are input, and any of it may be wrong."""
    try:
        yield
    except (LlmftError, MemoryError):
        raise
    except BaseException as error:
        # what the Rust libraries panic with is no Exception; a signal is none either, and goes on
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if is_out_of_memory(error):
            raise
        reason = str(error) or type(error).__name__
        raise ModelError(f"{where}: {reason if len(reason) <= LONGEST_REASON else reason[:LONGEST_REASON] + ' ...'}") from error


@contextmanager
def panics_explained(folder: Path) -> Iterator[None]:
    """Turn a panic of the tokenizer's into a ModelError: a pattern in its tokenizer.json that takes too long, say."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ModelError(f"{folder}: the tokenizer fails on a text: {error}. Use another model.") from error


def load_tokenizer(folder: Path, code: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer of `folder`; raises ModelError if it cannot be read."""
    with refused(f"{folder}: the tokenizer cannot be loaded"):
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=code, local_files_only=True)
        except (OSError, ValueError, KeyError, ImportError) as error:
            files = sorted(file.name for end in ("*.spm", "*.model") for file in folder.glob(end))
            if files and not (folder / "tokenizer.json").is_file() and not importlib.util.find_spec("sentencepiece"):
                raise ModelError(
                    f"{folder}: the tokenizer ({', '.join(files)}) is read by the package sentencepiece: pip install 'llmft[marian]'"
                ) from error
            raise
    # without its files transformers makes some tokenizers (GPT-2, T5, BERT) up: a few special tokens, nothing else
    files = sorted({"tokenizer.json", *tokenizer.vocab_files_names.values()} - {"tokenizer_config.json"})
    if tokenizer.vocab_files_names and not any((folder / file).is_file() for file in files):  # ByT5 needs no file
        raise ModelError(
            f"{folder}: there is no vocabulary; expected {' or '.join(files)}. Is the folder complete? save_pretrained writes "
            "the tokenizer's files too."
        )
    if tokenizer.get_vocab().keys() <= tokenizer.added_tokens_encoder.keys():
        raise ModelError(f"{folder}: the tokenizer's vocabulary is empty but for special tokens. Is the download complete?")
    return tokenizer


def load_config(folder: Path, code: bool = False) -> PretrainedConfig:
    """Read the model's configuration, having looked at the folder; raises ModelError if it is not to be loaded."""
    return read_config(folder, code)[0]


def read_config(folder: Path, code: bool) -> tuple[PretrainedConfig, Weights]:
    """Return the model's configuration, and what the headers say of its weights."""
    weights = check_folder(folder, code)
    with refused(f"{folder}/config.json"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=code, local_files_only=True)
    settle_padding(config, folder)
    return config, weights


def load_family(folder: Path, code: bool = False) -> Family:
    """Read the model's family from its config.json alone."""
    return family_of(load_config(folder, code), code)


def load_pretrained(
    folder: Path,
    dtype: torch.dtype,
    device: torch.device,
    head: Head = Head.text,
    labels: Sequence[str] = (),
    problem: str | None = None,
    code: bool = False,
) -> Pretrained:
    """Load model and tokenizer from a folder of safetensors, with the head asked for.

    labels: names of the classes in their order, for a label head; empty: those of the folder's configuration.
    problem: transformers' name of what the labels are: single_label_classification, multi_label_classification, regression.
    A span or label head that the folder does not have, or that was made for other classes, is random; `new` then names it.
    code: whether the operator trusts the Python that came with the model; without, none of it is run.

    Raises ModelError where files are missing or damaged, where other weights the architecture needs are not in them (they
    would be random too), or where tokenizer or configuration name ids that the embedding does not have; DoesNotFit where the
    weights are more than the free memory; ConfigError where the architecture has no such head.
    """
    config, weights = read_config(folder, code)
    family = family_of(config, code)
    loader = class_of(config, family, head)
    if not weights.tensors:
        raise ModelError(f"{folder}: the model cannot be loaded: {no_safetensors(folder)}")
    tokenizer = load_tokenizer(folder, code)
    settings = label_settings(config, labels, problem) if head is Head.label else {}
    for name, value in (settings | ({"problem_type": problem} if problem else {})).items():
        setattr(config, name, value)
    # what was fine-tuned from bfloat16 would lose in the nearest numbers what it has learnt
    tuned = getattr(config, "coarse_weights", False) and any(kind == "F32" for kind, _ in weights.tensors.values())
    read_in = torch.float32 if dtype is torch.bfloat16 and tuned and family is Family.decoder else dtype
    size = weights.numbers * read_in.itemsize
    if size > (free := available_bytes(torch.device("cpu"))):  # they pass through it on their way to a GPU, too
        raise DoesNotFit(
            f"{folder}: the weights take {size / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free. Set model.dtype=bfloat16 or "
            "adapter=lora, or take a smaller model."
        )
    options: dict[str, Any] = {"config": config, "dtype": read_in, "ignore_mismatched_sizes": bool(settings)}
    options |= {"trust_remote_code": code, "local_files_only": True, "use_safetensors": True}
    what = f"{folder}: the model cannot be loaded"
    try:
        with quiet(), refused(what), refused_beyond(2 * size + BESIDE_BYTES):
            model, report = loader.from_pretrained(folder, output_loading_info=True, **options)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(f"{what}: its config.json asks for more memory than its {size / 1e6:.1f} MB of weights do") from error
    new = fresh_modules(folder, model, report, head, relabelled=bool(settings))
    make_fresh(model, new)
    check_formats(folder, weights, {name for name, _ in model.named_parameters()}, model.base_model_prefix)
    check_ids(tokenizer, model, folder)
    if broken := first_not_finite(model.named_parameters()):
        raise ModelError(
            f"{folder}: {broken} holds numbers that are not finite, and all that is computed with them would not be either. Download "
            "the model again, or take another."
        )
    if family is Family.encoder_decoder and getattr(model.config, "decoder_start_token_id", None) is None:
        start = model.generation_config.decoder_start_token_id if model.can_generate() else None
        model.config.decoder_start_token_id = config.bos_token_id if start is None else start  # as transformers' generate does
    mark_coarse(model)
    if read_in is not dtype:
        to_16_bits(model)
    return Pretrained(model.to(device), tokenizer, family, folder, head, new, code=code)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep back transformers' table of weights that a folder lacks: what is random stands in `new`, or is an error."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def fresh_modules(
    folder: Path, model: PreTrainedModel, report: dict[str, Any], head: Head, relabelled: bool
) -> tuple[str, ...]:
    """Return the head's modules that the folder has no weights for, or none for these classes. Raises ModelError for others."""
    missing = sorted(report["missing_keys"])
    absent = {key: module_of(key, model.base_model_prefix) for key in missing}
    of_size = [key for key, *_ in report["mismatched_keys"] if module_of(key, model.base_model_prefix) == key]
    lacking = [key for key in missing if head not in FRESH or absent[key] == key] + of_size
    if lacking:
        what = f"the weights lack {', '.join(lacking[:3])}{' ...' if len(lacking) > 3 else ''}; is the download complete?"
        if head is Head.masked:
            what += " An encoder that was saved without its masked language model cannot be trained as one."
        raise ModelError(f"{folder}: {what}")
    return tuple(sorted({*absent.values(), *(head_modules(model) if relabelled else ())}))

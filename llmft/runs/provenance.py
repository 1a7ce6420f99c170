"""Where a run comes from: versions, machine, code and content hashes. Never a user name, a variable or a token."""

import contextlib
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from llmft.errors import LlmftError
from llmft.hardware import limits
from llmft.runs import durable
from llmft.runs.cache import cache_dir

PACKAGES = (
    *("llmft", "torch", "transformers", "peft", "datasets", "hydra-core", "omegaconf", "tokenizers", "safetensors", "numpy"),
    *("pyarrow", "accelerate", "bitsandbytes", "gguf", "optuna", "rouge-score", "sacrebleu", "triton"),
)
CACHED_FROM_BYTES = 1 << 20
"""Smaller files are hashed faster than looked up."""
SETTLED_S = 2.0
"""A file changed so recently could change again without a new time stamp; its hash is not remembered."""


def environment() -> dict[str, Any]:
    """Versions, platform, processor, memory, GPUs (only if torch is loaded by now), git commit of the current folder."""
    return {
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name)) is not None},
        "platform": platform.platform(),
        "cpu": limits.cpu_model() or platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": limits.total_memory_bytes(),
        "memory_limit_bytes": limits.memory_limit_bytes(),
        "oom_kills": limits.oom_kills(),
        "gpus": _gpus(),
        "git": _git(),
    }


def killed_for_memory(folder: Path) -> str | None:
    """Tell, in half a sentence, whether the kernel killed for lack of memory since the run in `folder` began; None: no, or unknown."""
    try:
        before = json.loads((folder / "environment.json").read_bytes())["oom_kills"]
        return limits.killed_since(before)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def hash_file(path: Path) -> str:
    """SHA-256 of a file's content in hex; that of a large file is remembered until its size or time changes."""
    return _hash_all([path])[0]


def hash_folder(path: Path, patterns: Iterable[str]) -> dict[str, str]:
    """SHA-256 of every file below `path` that one of the glob `patterns` matches, by its name relative to `path`."""
    paths = sorted({each for pattern in patterns for each in path.rglob(pattern) if each.is_file()})
    return {str(each.relative_to(path)): digest for each, digest in zip(paths, _hash_all(paths), strict=True)}


def code_mark() -> str:
    """16 hex digits that stand for llmft's own code, by the size and time of its files; another release or an edit changes them."""
    package = Path(__file__).parents[1]
    files = [(path, path.stat()) for path in sorted(package.rglob("*.py"))]
    return fingerprint(code=[[str(path.relative_to(package)), stat.st_size, stat.st_mtime_ns] for path, stat in files])


def fingerprint(**parts: Any) -> str:
    """16 hex digits that stand for `parts`, which are JSON values; the order of keys does not matter."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _hash_all(paths: list[Path]) -> list[str]:
    known: dict[str, str] | None = None
    new: dict[str, str] = {}
    digests = []
    for path in paths:
        before = path.stat()
        if before.st_size < CACHED_FROM_BYTES:
            digests.append(durable.sha256(path))
            continue
        known = _remembered() if known is None else known
        key = f"{path.resolve()}|{before.st_size}|{before.st_mtime_ns}"
        digest = known.get(key)
        if digest is None:
            digest = durable.sha256(path)
            if path.stat().st_mtime_ns == before.st_mtime_ns and time.time() - before.st_mtime > SETTLED_S:
                new[key] = digest
        digests.append(digest)
    if new:
        with contextlib.suppress(LlmftError, OSError):  # a help, not a need; two writers at once lose one's help
            durable.write_json(cache_dir() / "hashes.json", _remembered() | new)
    return digests


def _remembered() -> dict[str, str]:
    try:
        known = json.loads((cache_dir() / "hashes.json").read_bytes())
    except (LlmftError, OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _gpus() -> list[str]:
    torch = sys.modules.get("torch")  # importing it here would cost seconds
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def _git() -> dict[str, Any] | None:
    """Commit of the current folder and whether tracked files differ from it; None outside a repository."""
    commit, changes = _ask_git("rev-parse", "HEAD"), _ask_git("status", "--porcelain", "--untracked-files=no")
    return None if commit is None or changes is None else {"commit": commit.strip(), "dirty": bool(changes.strip())}


def _ask_git(*arguments: str) -> str | None:
    # fsmonitor is a command that a repository can name; optional locks would disturb a git command next door.
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None

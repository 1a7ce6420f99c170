"""Small findings that took long to make, remembered by a key that holds all that they depend on."""

import contextlib
import hashlib
import json
from typing import Any

from llmft.errors import LlmftError
from llmft.runs import durable
from llmft.runs.cache import cache_dir


def recall(kind: str, key: str) -> Any:
    """Return what was remembered under a key, a JSON value; None if there is nothing, or it is not what was written."""
    try:
        found = json.loads((cache_dir() / kind / f"{key}.json").read_bytes())
        return found["value"] if found["sha256"] == digest(found["value"]) else None
    except (LlmftError, OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def remember(kind: str, key: str, value: Any) -> None:
    """Keep a JSON value under a key. It is a help, not a need: a full disk or one that cannot be written is no error."""
    with contextlib.suppress(LlmftError, OSError):
        durable.write_json(cache_dir() / kind / f"{key}.json", {"value": value, "sha256": digest(value)})


def digest(value: Any) -> str:
    """SHA-256 in hex of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

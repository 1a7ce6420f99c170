"""Where things are kept that can be computed again."""

import os
from pathlib import Path

from llmft.errors import LlmftError


def cache_dir() -> Path:
    """$LLMFT_CACHE, else $XDG_CACHE_HOME/llmft, else ~/.cache/llmft; made if missing. Raises LlmftError if it cannot be."""
    if os.environ.get("LLMFT_CACHE"):
        path = Path(os.environ["LLMFT_CACHE"]).expanduser().absolute()
    elif os.environ.get("XDG_CACHE_HOME"):
        path = Path(os.environ["XDG_CACHE_HOME"]).absolute() / "llmft"
    else:
        path = Path("~/.cache/llmft").expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LlmftError(
            f"{path}: the cache folder cannot be made ({error.strerror}). Set LLMFT_CACHE to a folder that can be written."
        ) from error
    return path

"""What tests share: tiny models of every architecture, made once, and a cache of their own."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from absl import logging as absl_logging

ROOT = Path(__file__).parent.parent

# One thread: tiny models are slower with more, and test processes run side by side.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

# rouge-score brings absl, whose log handler closes the stream it was made with once Hydra sets logging up anew. Made while
# pytest captures, that would be pytest's; the process's own stderr it leaves alone.
absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a tiny random model of each architecture: tiny / "llama", tiny / "gpt2" and so on."""
    spec = importlib.util.spec_from_file_location("make_tiny_models", ROOT / "scripts" / "make_tiny_models.py")
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    folder = tmp_path_factory.mktemp("tiny")
    script.main(folder, [])
    return folder


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep converted models and tokens out of the user's cache."""
    os.environ["LLMFT_CACHE"] = str(tmp_path_factory.mktemp("cache"))

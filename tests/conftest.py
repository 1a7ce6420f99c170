"""What tests share: tiny models of every architecture, a training of one, a cache of their own, no signal from one to the next."""

import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from absl import logging as absl_logging

from llmft.runs import signals

ROOT = Path(__file__).parent.parent

# One thread: tiny models are slower with more, and test processes run side by side.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

# rouge-score brings absl, whose log handler closes the stream it was made with once Hydra sets logging up anew. Made while
# pytest captures, that would be pytest's; the process's own stderr it leaves alone.
absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__


@pytest.fixture(scope="session", autouse=True)
def hangups_are_heard() -> Iterator[None]:
    """Commands inherit what this process ignores, and under nohup that is SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


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


@pytest.fixture
def colours() -> list[str]:
    """Ten words that the rows of `data` are made of."""
    return ["red", "green", "blue", "black", "white", "brown", "pink", "grey", "gold", "teal"]


@pytest.fixture
def data(tmp_path: Path, colours: list[str]) -> Path:
    """Sixty rows whose targets follow from their sources."""
    path = tmp_path / "rows.jsonl"
    rows = [
        {"text": f"{colours[i % 10]} {colours[i // 10]} {i}", "answer": f"{colours[i // 10]} {colours[i % 10]}"}
        for i in range(60)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def command(tiny: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A training of 12 steps, four an epoch, with a checkpoint every five."""
    monkeypatch.chdir(tmp_path)
    return [
        "train",
        "task=summarization",
        f"task.data.train={data}",
        "task.source={text}",
        "task.target={answer}",
        "task.data.holdout=0.1",
        "adapter=none",
        "training.batch_size=16",
        "training.epochs=3",
        "training.save_every=5",
        "generation.max_new_tokens=4",
        "optimizer.lr=5e-3",
        "hardware.threads=1",
    ]


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep converted models and tokens out of the user's cache."""
    os.environ["LLMFT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _no_signal_is_left() -> Iterator[None]:
    """Signals that a test sends, and handlers that a command it calls installs, end with it: one still noted would stop another's work."""
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    yield
    until = time.monotonic() + 1
    while signals._stopping and signals._watching and signals._first is None and time.monotonic() < until:
        time.sleep(0.001)  # the watching thread has read by now, before another test begins
    for number, handler in before.items():
        signal.signal(number, handler)
    signals._first, signals._stopping, signals._noted, signals._depth, signals._closed = None, False, None, 0, False

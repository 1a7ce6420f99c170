"""Signals to the real command line while it still loads what it needs: heard, recorded, exit 75 or 130, no traceback.

The laboratory's fork server has loaded everything before, so a new Python is started here, as a user starts one. It is
waited for until it hears signals at all.
"""

import random
import signal
import time
from pathlib import Path

import crash_lab
import pytest

from llmft.runs import status
from llmft.runs.signals import SIGNALS


def while_it_imports(kind: signal.Signals, share: float, words: list[str], folder: Path, seconds: float) -> float:
    """Send a signal to a real command line that still loads what it needs; return the seconds from start to handlers."""
    command = crash_lab.start_real([*words, "output_dir=run"], folder, {"LLMFT_CACHE": str(folder / "cache")})
    began = time.monotonic()
    assert command.wait_until(command.hears), command.said()
    deaf = time.monotonic() - began
    time.sleep(share * seconds)
    command.kill(kind)
    assert command.wait() == (130 if kind == signal.SIGINT else 75), command.said()
    assert f"stopped by {kind.name}" in command.said()
    assert "Traceback" not in command.said()
    if (folder / "run").exists():
        found = status.read(folder / "run")
        assert found is None or (found.state, found.error) == ("stopped", kind.name)
    return deaf


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT], ids=lambda kind: kind.name)
def test_stopped_while_it_imports(kind: signal.Signals, undisturbed, tmp_path: Path) -> None:
    words, _, _ = undisturbed("bert_classes")
    while_it_imports(kind, {signal.SIGTERM: 0.3, signal.SIGINT: 0.6}[kind], words, tmp_path, 3.0)


@pytest.mark.torture
@pytest.mark.parametrize("kind", SIGNALS, ids=lambda kind: kind.name)
def test_stopped_while_it_imports_at_full_size(kind: signal.Signals, undisturbed, tmp_path: Path) -> None:
    words, _, _ = undisturbed("llama_accumulated")
    draw = random.Random(f"import {kind.name}")
    deaf = []
    for place in range(3):
        (tmp_path / str(place)).mkdir()
        deaf.append(while_it_imports(kind, draw.random(), words, tmp_path / str(place), 3.0))
    print(f"import: {kind.name} was heard {min(deaf):.3f} to {max(deaf):.3f} s after the start")

"""Runs that have claimed their folder, and runs that have ended there."""

from collections.abc import Callable

import pytest

from llmft.runs import directory
from llmft.runs.directory import RunDirectory


@pytest.fixture
def claim() -> Callable[..., RunDirectory]:
    """Claim a run directory under `root`, as a training does."""

    def make(
        root, output_dir=None, fingerprint="f", resume="auto", label="Sum/Smol LM", command=("llmft", "train")
    ) -> RunDirectory:
        return directory.claim(str(root), output_dir and str(output_dir), label, fingerprint, resume, list(command))

    return make


@pytest.fixture
def ended(claim: Callable[..., RunDirectory]) -> Callable[..., RunDirectory]:
    """Claim a run directory and end the run in it: done, stopped, failed or diverged."""

    def make(root, state: str, step: int = 5, **options) -> RunDirectory:
        run = claim(root, **options)
        run.update(step)
        run.finish(state, {"done": 0, "stopped": 75, "failed": 1, "diverged": 5}[state], None if state == "done" else "why")
        return run

    return make

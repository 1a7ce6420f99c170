"""Commands that tests of signals stop, run to their end once without any."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import crash_phases
import crash_runs
import pytest
from crash_phases import Told


@dataclass(frozen=True)
class Case:
    """A command, and what it works with."""

    task: str
    model: str
    settings: tuple[str, ...]
    command: str = "train"


CASES = {
    "llama_accumulated": Case(
        "summarization",
        "llama",
        ("adapter.r=4", "adapter.dropout=0.1", "training.micro_tokens=64", "training.baseline=true"),
    ),
    "t5_saved_beside": Case(
        "summarization",
        "t5",
        ("adapter=none", "training.micro_tokens=40", "training.async_save=true", "training.metric=rougeL"),
    ),
    "bert_classes": Case("classification", "bert", ("adapter=none",)),
    "from_scratch": Case(
        "translation",
        "scratch",
        (
            "adapter=none",
            *(f"model.scratch.{size}" for size in ("d_model=16", "layers=1", "heads=2", "ffn=16", "vocab_size=300")),
        ),
    ),
    "eval": Case("summarization", "llama", (), "eval"),
    "predict": Case("summarization", "llama", (), "predict"),
}


@pytest.fixture(scope="session")
def undisturbed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """Run a command of CASES to its end, once: (name) -> words, the folder in which `run` lies, and what the command noted."""
    data = tmp_path_factory.mktemp("data")
    crash_runs.write_rows(data)

    @cache
    def run(name: str) -> tuple[list[str], Path, Told]:
        case, folder = CASES[name], tmp_path_factory.mktemp(name)
        if case.command == "train":
            task = "summarization" if case.model == "scratch" else case.task
            words = crash_runs.training(task, tiny / case.model, data, *case.settings, "training.keep=100", "output_dir=run")
            if case.model == "scratch":
                words = ["model=transformer_small" if word.startswith("model.name=") else word for word in words]
        else:
            _, trained, _ = run("llama_accumulated")
            words = [case.command, f"run={trained / 'run'}", "generation.batch_size=2"]
            words += ["output=run"] if case.command == "eval" else [f"input={data / 'test.jsonl'}", "output=run.jsonl"]
        command = crash_runs.start_noted(words, folder, folder / "0.phases")
        assert command.wait() == 0, command.said()
        crash_runs.check_files(folder)
        return words, folder, crash_phases.read(folder / "0.phases")

    return run

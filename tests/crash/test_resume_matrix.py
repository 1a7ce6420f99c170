"""A run stopped or killed in the middle of an epoch, and of a step, goes on and ends in the same bytes: for every kind of run.

{full, LoRA} x {decoder, encoder-decoder, encoder} x {one micro-batch, four} x {.jsonl, a saved data set}, dropout on. Beside
them what else a run remembers: momenta of every optimizer, warm-up, patience, sampled validations.
"""

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import crash_lab
import crash_runs
import pytest

from llmft.runs import status

UPDATES = 10
"""Made before the signal, which comes in the middle of the next step: an epoch has 6."""
CHECKPOINT = 9
"""The newest one by then."""
LORA = ["adapter=lora", "adapter.r=4", "adapter.dropout=0.2"]
FULL = ["adapter=none"]
MODELS = {
    ("full", "decoder"): ("summarization", "gpt2"),
    ("full", "encoder_decoder"): ("summarization", "t5"),
    ("full", "encoder"): ("classification", "bert"),
    ("lora", "decoder"): ("summarization", "llama"),
    ("lora", "encoder_decoder"): ("summarization", "bart"),
    ("lora", "encoder"): ("question_answering_extractive", "bert"),
}
"""All with dropout: of the model itself, or of the adapter."""


@dataclass(frozen=True)
class Case:
    """One kind of training."""

    task: str
    model: str
    settings: tuple[str, ...]
    micro_batches: int = 1
    saved: bool = False
    """Whether the rows come from a data set as `datasets` saves it, else from .jsonl files."""


MATRIX = {
    f"{weights}-{family}-{micro}-{rows}": Case(
        *MODELS[weights, family],
        # One token: less than any document has, so that each is a micro-batch of its own.
        (*(LORA if weights == "lora" else FULL), *(["training.micro_tokens=1"] if micro == 4 else [])),
        micro,
        rows == "dataset",
    )
    for weights, family, micro, rows in product(
        ("full", "lora"), ("decoder", "encoder_decoder", "encoder"), (1, 4), ("jsonl", "dataset")
    )
}
OTHERS = {
    "sgd, cosine": Case("summarization", "gpt2", (*FULL, "optimizer=sgd", "schedule=cosine", "schedule.warmup=12")),
    "adafactor, wsd": Case("summarization", "bart", (*FULL, "optimizer=adafactor", "schedule=wsd", "schedule.warmup=0.6")),
    "muon, by score, sampled": Case(
        *("summarization", "llama"),
        (*FULL, "optimizer=muon", "training.metric=rougeL", "generation.temperature=1.0", "training.eval_every=2"),
    ),
    # At this rate nothing changes, so that only the first validation is the best, and the seventh the last.
    "patience": Case(
        *("classification", "bert"),
        (*FULL, "training.patience=6", "training.eval_every=2", "optimizer=sgd", "optimizer.lr=1e-30"),
    ),
    "merged": Case("summarization", "gpt2", (*LORA, "export.merge=true")),
}
SIGNALS = {"stopped": signal.SIGTERM, "killed": signal.SIGKILL}
QUICK = [
    ("full-decoder-4-jsonl", "killed"),
    ("full-encoder-4-dataset", "stopped"),
    ("lora-encoder_decoder-4-jsonl", "killed"),
    ("lora-encoder-1-jsonl", "killed"),
]

Unharmed = Callable[[str, Case], tuple[list[str], Path]]


@pytest.fixture(scope="module")
def unharmed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Unharmed:
    """The words of a case, and the run directory of a run that nothing happened to; each is run once."""
    folder = tmp_path_factory.mktemp("whole")
    crash_runs.write_rows(folder / "rows")
    crash_runs.save_as_dataset(folder / "dataset", folder / "rows")
    done: dict[str, tuple[list[str], Path]] = {}

    def run(name: str, case: Case) -> tuple[list[str], Path]:
        if name not in done:
            data = folder / ("dataset" if case.saved else "rows")
            words = crash_runs.training(case.task, tiny / case.model, data, *case.settings)
            counts = folder / f"{name}.steps"
            code, said = crash_lab.run([*words, f"output_dir={folder / name}"], folder, {"LAB_STEPS": str(counts)})
            assert code == 0, said
            passes = counts.read_text().split(".")[1:-1]  # before the first update the longest batch may be tried
            assert set(passes) == {"b" * case.micro_batches}, passes
            done[name] = words, folder / name
        return done[name]

    return run


def interrupt_and_go_on(name: str, case: Case, how: str, unharmed: Unharmed, folder: Path) -> None:
    """Interrupt a run in the middle of a step, repeat its command, and compare with the run that nothing happened to."""
    words, expected = unharmed(name, case)
    words, run = [*words, f"output_dir={folder / 'run'}"], folder / "run"
    first, second = folder / "first.steps", folder / "second.steps"
    cache = {"LLMFT_CACHE": str(folder / "cache")}
    moment = f"{SIGNALS[how].value}@{UPDATES}+{2 if case.micro_batches > 1 else 1}"
    code, said = crash_lab.run(words, folder, {**cache, "LAB_STEPS": str(first), "LAB_SIGNAL": moment})
    found = status.read(run)
    assert found is not None
    if how == "stopped":
        # A signal is seen before a micro-batch: the step with one alone is done first, the one with four is given up.
        last = UPDATES if case.micro_batches > 1 else UPDATES + 1
        assert (code, found.state, found.exit, found.step) == (75, "stopped", 75, last), said
    else:
        last = CHECKPOINT
        assert (code, found.state, found.exit) == (-signal.SIGKILL, "dead", None), said
    steps = json.loads((expected / "results.json").read_text())["train"]["steps"]
    code, said = crash_lab.run(words, folder, {**cache, "LAB_STEPS": str(second)})
    assert code == 0, said
    assert said.startswith(f"resuming {run} from step {last}\n")
    assert "bit for bit" not in said, "the same machine gives the same bits"
    assert crash_runs.counted(first, ".") == (last if how == "stopped" else UPDATES)
    assert crash_runs.counted(second, ".") == steps - last
    crash_runs.assert_same_ending(expected, run)


@pytest.mark.parametrize(("name", "how"), QUICK)
def test_some_of_the_matrix(name: str, how: str, unharmed: Unharmed, tmp_path: Path) -> None:
    interrupt_and_go_on(name, MATRIX[name], how, unharmed, tmp_path)


def test_a_run_that_is_computed_otherwise_from_now_on_says_so(unharmed: Unharmed, tmp_path: Path) -> None:
    words, _ = unharmed("full-encoder-4-dataset", MATRIX["full-encoder-4-dataset"])
    words = [*words, f"output_dir={tmp_path / 'run'}"]
    code, said = crash_lab.run(words, tmp_path, {"LAB_SIGNAL": f"{signal.SIGTERM.value}@{UPDATES}+1"})
    assert code == 75, said
    recorded = tmp_path / "run" / "environment.json"
    values = json.loads(recorded.read_text())
    assert values["threads"] == 1
    torch = values["packages"]["torch"]
    values["packages"]["torch"] = "2.0.0"
    recorded.write_text(json.dumps(values))
    words = [word.replace("hardware.threads=1", "hardware.threads=2") for word in words]
    code, said = crash_lab.run(words, tmp_path)
    assert code == 0, said
    first, second = said.splitlines()[:2]
    assert first == f"resuming {tmp_path / 'run'} from step {UPDATES}"
    assert second == (
        f"the run goes on with torch {torch} (before: 2.0.0), threads 2 (before: 1): its result is as good, but no longer bit "
        "for bit that of a run that was never stopped"
    )


@pytest.mark.torture
@pytest.mark.parametrize("name", MATRIX)
def test_the_whole_matrix(name: str, unharmed: Unharmed, tmp_path: Path) -> None:
    assert len(MATRIX) == 24
    for how in SIGNALS:
        (tmp_path / how).mkdir()
        interrupt_and_go_on(name, MATRIX[name], how, unharmed, tmp_path / how)


@pytest.mark.torture
@pytest.mark.parametrize("name", OTHERS)
def test_what_else_a_run_remembers(name: str, unharmed: Unharmed, tmp_path: Path) -> None:
    for how in SIGNALS:
        (tmp_path / how).mkdir()
        interrupt_and_go_on(name, OTHERS[name], how, unharmed, tmp_path / how)
    if name == "patience":
        train = json.loads((tmp_path / "killed/run/results.json").read_text())["train"]
        assert (train["steps"], train["best_step"]) == (14, 2)

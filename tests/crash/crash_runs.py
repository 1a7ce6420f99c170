"""Tiny trainings for the laboratory, whether one left anything half written, and whether two ended in the same bytes."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import crash_lab

from llmft.runs import manifest

COLOURS = ["red", "green", "blue", "black", "white", "brown", "pink", "grey", "gold", "teal"]
COLUMNS = {
    "summarization": ["task.source={text}", "task.target={answer}"],
    "classification": ["task.source={text}", "task.target={label}"],
    "question_answering_extractive": [
        *("task.source={question}", "task.context={text}", "task.target={word}"),
        *("task.row=null", "task.answer_start=null"),
    ],
}
MEASURED = ("seconds", "memory_bytes")
"""What a clock or the system says of a step, and not the run's settings."""
VALIDATED = ("validated", "validation_loss", "validation_loss_before", "best", "best_step", "worse", "ended", "seconds")
"""Entries of a checkpoint's position that tell of its validation; and its seconds, which are the clock's."""
LEFTOVER = re.compile(r"\..+\.(tmp|old)-.*")


def write_rows(folder: Path) -> None:
    """Write train.jsonl with 24 rows, and 6 each for validation.jsonl and test.jsonl, whose answers follow from their texts."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, numbers in (("train", range(24)), ("validation", range(24, 30)), ("test", range(30, 36))):
        rows = [
            {
                "text": f"{COLOURS[number % 10]} {COLOURS[number // 10]} {number}",
                "answer": f"{COLOURS[number // 10]} {COLOURS[number % 10]}",
                "label": ("even", "odd")[number % 2],
                "question": f"What stands before {number} ?",
                "word": COLOURS[number // 10],
            }
            for number in numbers
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def save_as_dataset(folder: Path, data: Path) -> None:
    """Write the rows of `data` once more, as the `datasets` library saves a data set: read by it, as one from the hub is."""
    import datasets

    splits = {split: crash_lab.rows(data / f"{split}.jsonl") for split in ("train", "validation", "test")}
    tables = {split: datasets.Dataset.from_list(rows) for split, rows in splits.items()}
    datasets.DatasetDict(tables).save_to_disk(str(folder))


def training(task: str, model: Path, data: Path, *settings: str) -> list[str]:
    """Return the words of a training of 24 steps of 4 rows, a checkpoint each third, a validation each sixth."""
    in_files = [f"task.data.{split}={data / split}.jsonl" for split in ("train", "validation", "test")]
    return [
        "train",
        f"task={task}",
        f"model.name={model}",
        *COLUMNS[task],
        *(in_files if (data / "train.jsonl").exists() else [f"task.data.train={data}"]),
        "training.batch_size=4",
        "training.max_steps=24",
        "training.save_every=3",
        "training.eval_every=6",
        "training.baseline=false",
        "optimizer.lr=5e-3",
        "generation.max_new_tokens=4",
        "hardware.threads=1",
        "hardware.precision=fp32",
        *settings,
    ]


def start_noted(words: list[str], folder: Path, noted: Path, alarm: str = "", log: str = "0.log") -> crash_lab.Command:
    """Start a command that notes its phases, with a cache and temporary files of its own."""
    (folder / "tmp").mkdir(exist_ok=True)
    env = {"LLMFT_CACHE": str(folder / "cache"), "TMPDIR": str(folder / "tmp"), "LAB_PHASES": str(noted)}
    return crash_lab.start(words, folder, env | ({"LAB_ALARM": alarm} if alarm else {}), folder / log)


def check_files(folder: Path) -> None:
    """Assert that nothing is half written: folders keep their manifests, JSON parses, nothing temporary is left."""
    assert not list((folder / "tmp").iterdir())
    for path in folder.rglob("*"):
        assert not LEFTOVER.fullmatch(path.name), f"left behind: {path}"
        if path.name == manifest.MANIFEST:
            assert not manifest.verify(path.parent)
        if path.suffix == ".json":
            json.loads(path.read_bytes())
        if path.suffix in (".jsonl", ".partial") and path.is_file():
            text = path.read_text()
            assert text == "" or text.endswith("\n"), path
            assert len(crash_lab.rows(path)) == text.count("\n")


def compare(command: str, expected: Path, found: Path) -> None:
    """Assert that both folders hold the same outcome, byte for byte."""
    if command == "predict":
        assert (found / "run.jsonl").read_bytes() == (expected / "run.jsonl").read_bytes()
        assert not list(found.glob(".run.jsonl*"))
    elif command == "eval":
        for path in (expected / "run" / "predictions").iterdir():
            assert (found / "run" / "predictions" / path.name).read_bytes() == path.read_bytes()
        results = [json.loads((folder / "run" / "results.json").read_text()) for folder in (expected, found)]
        for name in ("n", "metrics", "baselines", "fingerprints"):
            assert results[0][name] == results[1][name]
    else:
        due = saved_steps(expected / "run")
        for step in saved_steps(found / "run"):
            if step not in due:  # saved because of a signal
                shutil.rmtree(found / "run" / "checkpoints" / f"step-{step:06d}")
            else:
                _make_validated(expected / "run", found / "run", f"checkpoints/step-{step:06d}/state.json")
        assert_same_ending(expected / "run", found / "run")


def assert_same_ending(expected: Path, found: Path) -> None:
    """Assert that two run directories hold the same model, checkpoints, record, predictions and scores, byte for byte.

    What a clock, the memory or the run's own name puts into a file is left out; nothing else is.
    """
    for pattern in ("model/*", "checkpoints/step-*/*.safetensors", "predictions/*.jsonl"):
        paths = {str(path.relative_to(expected)) for path in expected.glob(pattern)}
        assert paths == {str(path.relative_to(found)) for path in found.glob(pattern)}, pattern
        assert paths, f"{expected} has no {pattern}"
        for path in sorted(paths):
            assert (expected / path).read_bytes() == (found / path).read_bytes(), f"{found / path} is another"
    states = [
        {path.parent.name: _state(path) for path in run.glob("checkpoints/step-*/state.json")} for run in (expected, found)
    ]
    assert states[0] == states[1]
    bests = [(run / "checkpoints/best").readlink() for run in (expected, found)]
    assert bests[0] == bests[1]
    assert record(expected) == record(found)
    results = [json.loads((run / "results.json").read_text()) for run in (expected, found)]
    for name in ("task", "n", "metrics", "before", "paired", "baselines", "objective", "gates", "fingerprints"):
        assert results[0][name] == results[1][name], name
    training = [{name: value for name, value in each["train"].items() if "second" not in name} for each in results]
    assert training[0] == training[1]


def record(run: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, without what a clock and the system say."""
    rows = crash_lab.rows(run / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in rows]


def counted(steps: Path, what: str) -> int:
    """How many updates (".") or backward passes ("b") a process with LAB_STEPS made."""
    return steps.read_text().count(what) if steps.exists() else 0


def saved_steps(run: Path) -> list[int]:
    """Steps of the checkpoints on the disk, in their order."""
    return sorted(int(path.name.removeprefix("step-")) for path in run.glob("checkpoints/step-" + "[0-9]" * 6))


def _make_validated(expected: Path, found: Path, name: str) -> None:
    """A checkpoint that a signal in the middle of its validation left does not know of it; assert that nothing else differs."""
    states = [json.loads((run / name).read_text()) for run in (expected, found)]
    if states[1]["position"]["validated"] != states[1]["position"]["step"]:
        shutil.copy(expected / name, found / name)
        for state in states:
            for known in VALIDATED:
                del state["position"][known]
        assert states[0] == states[1]


def _state(path: Path) -> dict[str, Any]:
    state = json.loads(path.read_text())
    del state["position"]["seconds"]
    return state

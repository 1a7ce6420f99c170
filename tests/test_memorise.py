"""Every sensible pair of task and family learns sixteen rows by heart, through the command line.

Targets are shuffled among the rows, so that nothing but learning gives a good score: the untuned score is near 0, the tuned
one near perfect. The evaluation after reload, and predictions scored from a file, give the same numbers to the digit.
"""

import json
import random
from pathlib import Path

import pytest

from llmft.cli.main import main

WORDS = [
    "sun",
    "cat",
    "dog",
    "fox",
    "list",
    "class",
    "name",
    "value",
    "first",
    "error",
    "text",
    "time",
    "way",
    "word",
    "one",
    "two",
]
TARGETS = random.Random(3).sample(WORDS, 16)
SOURCES = [f"the {word} number {place}" for place, word in enumerate(WORDS)]


def translations() -> list[dict]:
    return [
        {"source": source, "target": f"{target} and {word} and {target}"}
        for source, word, target in zip(SOURCES, WORDS, TARGETS, strict=True)
    ]


def summaries() -> list[dict]:
    return [{"document": source, "summary": [target, f"a {target}"]} for source, target in zip(SOURCES, TARGETS, strict=True)]


def questions() -> list[dict]:
    """Each context holds four words more that could be the answer."""
    chance, rows = random.Random(6), []
    for place, (word, target) in enumerate(zip(WORDS, TARGETS, strict=True)):
        others = chance.sample([other for other in WORDS if other not in (word, target)], 4)
        context = " ".join(chance.sample([target, *others], 5))
        answers = {"text": [target], "answer_start": [f" {context} ".index(f" {target} ")]}
        rows.append({"id": f"q{place}", "question": f"what of {word}", "context": context, "answers": answers})
    return rows


def conversations() -> list[dict]:
    return [
        {
            "messages": [
                {"role": "user", "content": f"say {word}"},
                {"role": "assistant", "content": word},
                {"role": "user", "content": "and what goes with it"},
                {"role": "assistant", "content": target},
            ]
        }
        for word, target in zip(WORDS, TARGETS, strict=True)
    ]


def texts() -> list[dict]:
    return [
        {"text": f"{source} goes with {target}, and {target} with it"} for source, target in zip(SOURCES, TARGETS, strict=True)
    ]


def labels() -> list[dict]:
    return [{"text": source, "label": f"class {ord(target[0]) % 4}"} for source, target in zip(SOURCES, TARGETS, strict=True)]


def label_sets() -> list[dict]:
    names = ["red", "green", "blue"]
    return [
        {"text": source, "label": [name for bit, name in enumerate(names) if place >> bit & 1]}
        for source, place in zip(SOURCES, random.Random(4).sample(range(16), 16), strict=True)
    ]


def values() -> list[dict]:
    return [
        {"text": source, "label": place / 4}
        for source, place in zip(SOURCES, random.Random(5).sample(range(16), 16), strict=True)
    ]


# task -> rows, settings, score, the untuned score is at most (of perplexity: at least), the tuned one at least (at most)
TASKS = {
    "translation": (translations, ["task.source_language=null", "task.target_language=null"], "bleu", 10, 95),
    "summarization": (summaries, [], "rougeL", 20, 95),
    "question_answering": (questions, [], "f1", 20, 90),
    "instruction": (conversations, ["task.messages=messages"], "rougeL", 20, 90),
    "question_answering_extractive": (questions, [], "exact_match", 20, 90),
    "text_generation": (texts, [], "perplexity", 50, 2.0),
    "classification": (labels, [], "accuracy", 60, 99),
    "multi-label": (label_sets, ["task.label_kind=multi"], "accuracy", 40, 99),
    "regression": (values, ["task.target={label}"], "pearson", 70, 90),
}
LABELS = ("classification", "multi-label", "regression")
NAMES = {"multi-label": "classification"}
PAIRS = [
    *(
        (task, model)
        for task in ("translation", "summarization", "question_answering", "instruction")
        for model in ("llama", "gpt2")
    ),
    *(
        (task, model)
        for task in ("translation", "summarization", "question_answering", "instruction")
        for model in ("t5", "bart")
    ),
    ("translation", "marian"),
    ("translation", "scratch"),
    ("question_answering_extractive", "bert"),
    ("text_generation", "gpt2"),
    ("text_generation", "bert"),
    *((task, model) for task in ("classification", "multi-label", "regression") for model in ("bert", "llama", "bart")),
    ("classification", "gpt2"),
    ("classification", "t5"),
]


STEPS = {"llama": 150, "gpt2": 150, "t5": 225, "bart": 225, "marian": 225, "scratch": 75}


def steps_and_rate(task: str, model: str) -> tuple[int, str]:
    """How long each pair takes to learn; T5 is scaled to larger rates, BERT's labels want smaller ones."""
    if task in LABELS:
        return (150, "2e-3") if model == "bert" else (250 if task == "regression" else 75, "5e-3")
    if model == "bert":  # where any word may be masked there is more to learn than an answer's place
        return (350 if task == "text_generation" else 75), "5e-3"
    return STEPS[model], "1e-2" if model == "t5" else "5e-3"


SCRATCH = "model.scratch={d_model: 64, layers: 2, heads: 4, ffn: 128, dropout: 0.0, vocab_size: 300}"


@pytest.mark.parametrize(("task", "model"), PAIRS)
def test_a_pair_learns_by_heart(task: str, model: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows, settings, score, untuned, tuned = TASKS[task]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    steps, rate = steps_and_rate(task, model)
    start = ["model.name=new", SCRATCH] if model == "scratch" else [f"model.name={tiny / model}"]
    command = [
        *(f"task={NAMES.get(task, task)}", *start, *settings),
        *(f"task.data.{split}=rows.jsonl" for split in ("train", "validation", "test")),
        *("adapter=none", f"optimizer.lr={rate}", "schedule=wsd", "schedule.warmup=10"),
        *(
            f"training.max_steps={steps}",
            "training.batch_size=16",
            "training.eval_every=never",
            "training.save_every=never",
        ),
        *("generation.max_new_tokens=24", "hardware.precision=fp32", "task.max_source_tokens=96", "task.overlap=0"),
    ]
    assert main(["train", *command]) == 0
    run = Path("outputs/latest").resolve()
    found = json.loads((run / "results.json").read_text())
    before, after = found["before"][score]["value"], found["metrics"][score]["value"]
    better = -1 if score == "perplexity" else 1
    assert better * (before or 0) <= better * untuned
    assert better * after >= better * tuned

    assert main(["eval", "run=latest"]) == 0
    (folder,) = (run / "eval").iterdir()
    again = json.loads((folder / "results.json").read_text())
    assert again["metrics"] == found["metrics"]

    assert main(["predict", "run=latest", "input=rows.jsonl", "output=predictions.jsonl"]) == 0
    assert main(["eval", "run=latest", "predictions=predictions.jsonl", "references=rows.jsonl", "output=scored"]) == 0
    assert json.loads(Path("scored/results.json").read_text())["metrics"] == found["metrics"]

"""results.json against the tools that papers cite, fed with the raw gold file and predictions.jsonl from outside llmft."""

import collections
import json
import re
import string
import subprocess
import sys
from pathlib import Path

import pytest
from rouge_score import rouge_scorer

from llmft.cli.main import main

GOLD = [
    {"id": "a", "source": "Der Fuchs springt.", "refs": ["The fox jumps over the dog.", "A fox leaps over a dog."]},
    {"id": "b", "source": "Es regnet heute.", "refs": ["It is raining today.", "Today it rains. All day long."]},
    {"id": "c", "source": "Gut!", "refs": ["Very good, I think so too.", "Good!"]},
    {"id": "d", "source": "Nein.", "refs": ["No, not at all; never again.", "No."]},
]
WRITTEN = {"c": "Good, I think so too.", "a": "The fox leaps over the dog.", "d": "", "b": "Today it is raining. All day long."}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Gold rows, and predictions in another order, as something else than llmft may have written them."""
    monkeypatch.chdir(tmp_path)
    Path("gold.jsonl").write_text("".join(json.dumps(row) + "\n" for row in GOLD))
    Path("written.jsonl").write_text(
        "".join(json.dumps({"id": key, "prediction": text}) + "\n" for key, text in WRITTEN.items())
    )
    return tmp_path


def evaluated(*settings: str) -> dict[str, float]:
    """The scores in results.json, by name."""
    assert main(["eval", *settings, "output=scored"]) == 0
    return {name: score["value"] for name, score in json.loads(Path("scored/results.json").read_text())["metrics"].items()}


def raw_predictions() -> list[dict]:
    return [json.loads(line) for line in Path("scored/predictions/test.jsonl").read_text().splitlines()]


def sacrebleu(*options: str) -> float:
    """What its own command line says of the files."""
    by_id = {row["id"]: row["prediction"] for row in raw_predictions()}
    Path("hypotheses.txt").write_text("".join(by_id[row["id"]] + "\n" for row in GOLD))
    for number in (0, 1):
        Path(f"references.{number}").write_text("".join(row["refs"][number] + "\n" for row in GOLD))
    command = [
        sys.executable,
        "-m",
        "sacrebleu",
        "references.0",
        "references.1",
        "-i",
        "hypotheses.txt",
        "-b",
        "-w",
        "4",
        *options,
    ]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_translation_by_sacrebleu(files: Path) -> None:
    found = evaluated(
        *("model=none", "task=translation", "predictions=written.jsonl", "references=gold.jsonl", "task.target={refs}"),
        "task.target_language=en",
    )
    assert found["bleu"] == pytest.approx(sacrebleu("-m", "bleu"), abs=0.01)
    assert found["chrf2"] == pytest.approx(sacrebleu("-m", "chrf"), abs=0.01)
    assert found["chrf2pp"] == pytest.approx(sacrebleu("-m", "chrf", "--chrf-word-order", "2"), abs=0.01)
    assert found["ter"] == pytest.approx(sacrebleu("-m", "ter"), abs=0.01)


def test_summarization_by_rouge_score(files: Path) -> None:
    found = evaluated(
        *("model=none", "task=summarization", "predictions=written.jsonl", "references=gold.jsonl"),
        *("task.source={source}", "task.target={refs}"),
    )
    names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    scorer = rouge_scorer.RougeScorer(names, use_stemmer=True)
    by_id, total = {row["id"]: row["prediction"] for row in raw_predictions()}, collections.Counter()
    for row in GOLD:
        texts = [re.sub(r"(?<=[.!?]) ", "\n", text) for text in (*row["refs"], by_id[row["id"]])]  # a sentence a line
        scores = scorer.score_multi(texts[:-1], texts[-1])
        total.update({name: 100 * scores[name].fmeasure / len(GOLD) for name in names})
    for name in names:
        assert found[name] == pytest.approx(total[name], abs=0.01)


ANSWERS = [
    ("the Norman dukes", ["Norman dukes", "dukes of Normandy"], 1, 1.0),  # an article does not count
    ("1,066", ["1066", "in 1066"], 1, 1.0),  # nor does punctuation
    ("King Harold Godwinson", ["Harold", "Harold II"], 0, 0.5),
    ("", ["William"], 0, 0.0),  # an empty answer is wrong, not absent
    ("a", ["the"], 1, 1.0),  # both nothing once articles are gone
]


def by_definition(prediction: str, gold: str) -> tuple[int, float]:
    """Rajpurkar et al. 2016, section 5, written a second time."""

    def words(text: str) -> list[str]:
        plain = "".join(letter for letter in text.lower() if letter not in string.punctuation)
        return [word for word in plain.split() if word not in ("a", "an", "the")]

    ours, theirs = words(prediction), words(gold)
    common = sum((collections.Counter(ours) & collections.Counter(theirs)).values())
    if not ours or not theirs:
        return int(ours == theirs), float(ours == theirs)
    precision, recall = common / len(ours), common / len(theirs)
    return int(ours == theirs), 2 * precision * recall / (precision + recall) if common else 0.0


@pytest.mark.parametrize("task", ["question_answering", "question_answering_extractive"])
def test_answers_by_the_definition(task: str, files: Path) -> None:
    context = " ".join(text for _, golds, *_ in ANSWERS for text in golds)
    rows = [
        {
            "id": f"q{place}",
            "question": "?",
            "context": context,
            "answers": {"text": golds, "answer_start": [context.index(text) for text in golds]},
        }
        for place, (_, golds, *_) in enumerate(ANSWERS)
    ]
    paragraph = {"context": context, "qas": [{name: row[name] for name in ("id", "question", "answers")} for row in rows]}
    for question in paragraph["qas"]:
        found = question["answers"]
        question["answers"] = [
            dict(zip(("text", "answer_start"), pair, strict=True))
            for pair in zip(found["text"], found["answer_start"], strict=True)
        ]
    Path("squad.json").write_text(json.dumps({"data": [{"title": "t", "paragraphs": [paragraph]}]}))
    Path("answers.jsonl").write_text(
        "".join(json.dumps({"id": f"q{place}", "prediction": text}) + "\n" for place, (text, *_) in enumerate(ANSWERS))
    )
    found = evaluated("model=none", f"task={task}", "predictions=answers.jsonl", "references=squad.json")
    best = [
        [max(part) for part in zip(*(by_definition(text, gold) for gold in golds), strict=True)] for text, golds, *_ in ANSWERS
    ]
    assert best == [[exact, pytest.approx(f1)] for *_, exact, f1 in ANSWERS]  # the definition itself, by hand
    assert found["exact_match"] == pytest.approx(100 * sum(exact for exact, _ in best) / len(best), abs=0.01)
    assert found["f1"] == pytest.approx(100 * sum(f1 for _, f1 in best) / len(best), abs=0.01)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (['{"id": "a", "prediction": "x"}'] * 2, "written.jsonl:2: the id 'a' stands in written.jsonl:1 already."),
        (
            ['{"id": "a", "prediction": "x"}'],
            "predictions=written.jsonl: none with the id 'b', which gold.jsonl has (1 predictions, 4 rows).",
        ),
        (
            [json.dumps({"id": key, "prediction": "x"}) for key in "abcde"],
            "written.jsonl:5: gold.jsonl has no row with the id 'e'.",
        ),
        (
            ['{"prediction": "x"}'] * 3,
            "predictions=written.jsonl: 3 predictions for 4 rows of gold.jsonl; the first without a partner is gold.jsonl:4.",
        ),
        (
            ['{"id": "a", "prediction": "x"}'] + ['{"prediction": "x"}'] * 3,
            "written.jsonl:2: no id, which 1 of the 4 predictions have. Give each row its id, or none of them.",
        ),
        (['{"id": "a", "text": "x"}'], "written.jsonl:1: no column 'prediction'; the row has id, text."),
        (
            ['{"id": "a", "prediction": null}', *(f'{{"id": "{key}", "prediction": ""}}' for key in "bcd")],
            "written.jsonl:1: the prediction is None; expected a text.",
        ),
    ],
)
def test_predictions_that_do_not_fit(lines: list[str], said: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("written.jsonl").write_text("\n".join(lines) + "\n")
    command = ["eval", "model=none", "task=summarization", "predictions=written.jsonl", "references=gold.jsonl"]
    assert main([*command, "task.source={source}", "task.target={refs}"]) == 4
    assert said in capsys.readouterr().err
    assert not list(Path().glob("outputs/*"))  # the file is repaired and the command repeated, with nothing in the way


def test_references_of_a_text_file_are_lines_without_sources(files: Path) -> None:
    Path("written.txt").write_text("A cat sat here.\nNo.\n")
    Path("gold.txt").write_text("A cat sat there.\nYes.\n")
    command = ["model=none", "task=summarization", "predictions=written.txt", "references=gold.txt", "output=found"]
    assert main(["eval", *command]) == 0
    found = json.loads(Path("found/results.json").read_text())
    assert found["metrics"]["rouge1"]["value"] == pytest.approx(37.5)  # 3 of 4 words, and 0 of 1
    assert found["n"] == 2
    assert "copied" not in found["metrics"]  # of sources nothing is known
    assert found["baselines"] == {}


def test_lines_of_text_keep_their_places(files: Path) -> None:
    Path("written.txt").write_text("".join(WRITTEN[row["id"]] + "\n" for row in GOLD))
    command = ["model=none", "task=summarization", "references=gold.jsonl", "task.source={source}", "task.target={refs}"]
    by_line = evaluated(*command, "predictions=written.txt")
    assert main(["eval", *command, "predictions=written.jsonl", "output=by_id"]) == 0
    by_id = {name: score["value"] for name, score in json.loads(Path("by_id/results.json").read_text())["metrics"].items()}
    assert by_line == by_id
    assert raw_predictions()[3]["prediction"] == ""
    assert "cut" not in by_line  # nobody says how these texts ended
    assert by_line["empty"] == 25

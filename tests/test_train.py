"""Whole trainings of tiny models through the command line: what they leave, what they are held to, what is refused."""

import json
from pathlib import Path

import pytest

from llmft.cli.main import main
from llmft.runs import durable


def test_a_run_leaves_what_the_page_says(command: list[str], tiny: Path) -> None:
    assert main([*command, f"model.name={tiny / 'llama'}", "training.keep=1"]) == 0
    run = Path("outputs/latest").resolve()
    names = {path.name for path in run.iterdir() if not path.name.startswith(".")}
    assert names == {
        "README.md",
        "checkpoints",
        "config.yaml",
        "data.json",
        "environment.json",
        "loss_curve.svg",
        "metrics.jsonl",
        "model",
        "plan.json",
        "predictions",
        "report.html",
        "rerun.yaml",
        "results.json",
        "status.json",
        "train.log",
    }
    log = (run / "train.log").read_text()
    assert f"run {run}" in log
    assert "step 12: validation loss" in log
    assert "rougeL" in log
    results = json.loads((run / "results.json").read_text())
    assert results["n"] == len((run / "predictions/test.jsonl").read_text().splitlines())
    assert results["train"]["steps"] == 12
    assert results["train"]["validation_loss"] < results["train"]["validation_loss_before"]
    rows = [json.loads(line) for line in (run / "predictions/test.jsonl").read_text().splitlines()]
    mean = sum(row["scores"]["rougeL"] for row in rows) / len(rows)
    assert results["metrics"]["rougeL"]["value"] == pytest.approx(mean)
    assert (run / "checkpoints/best").resolve().name == f"step-{results['train']['best_step']:06d}"
    assert not durable.verify(run / "checkpoints/best")


@pytest.mark.parametrize(("gate", "code"), [("gate.min.rougeL=99.5", 3), ("gate.max.loss=100", 0)])
def test_gates_decide_the_exit_code(gate: str, code: int, command: list[str], tiny: Path) -> None:
    assert main([*command, f"model.name={tiny / 'llama'}", "training.max_steps=1", gate]) == code
    results = json.loads(Path("outputs/latest/results.json").read_text())
    assert [each["met"] for each in results["gates"]] == [code == 0]


SENSELESS = [
    *((task, "bert") for task in ("translation", "summarization", "question_answering", "instruction")),
    *(("question_answering_extractive", model) for model in ("gpt2", "llama", "t5", "bart")),
    *(("text_generation", model) for model in ("t5", "bart", "marian")),
]


@pytest.mark.parametrize(("task", "model"), SENSELESS)
def test_senseless_pairs_are_refused_in_a_sentence_that_names_what_would_do(
    task: str, model: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", f"task={task}", f"model.name={tiny / model}", "adapter=none"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: model.name: {model} is a")
    assert f"task={task} " in line
    assert "Or use another model: model=" in line
    assert not Path("outputs").exists()


def test_a_sweep_with_a_failing_job(command: list[str], tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # one learning rate is so large that the second step is not finite
    settings = ["adapter=lora", "training.max_steps=3", "optimizer.lr=1e-3,1e-4,1e38", "adapter.r=4,8"]
    assert main([*command, "-m", f"model.name={tiny / 'llama'}", *settings]) == 1
    (path,) = Path("outputs").glob("*-sweep/sweep.json")
    sweep = json.loads(path.read_text())
    exits = {tuple(row["overrides"]): row["exit"] for row in sweep["rows"]}
    assert len(exits) == 6
    assert all((code == 5) == any("1e38" in word or "1e+38" in word for word in row) for row, code in exits.items()), exits
    assert set(exits.values()) == {0, 5}
    best = sweep["rows"][sweep["best"]]
    good = [row["objective"]["value"] for row in sweep["rows"] if row["exit"] == 0]
    assert best["objective"]["value"] == min(good)
    assert "diverged" in capsys.readouterr().err


def test_a_gate_without_a_baseline_costs_no_training(
    command: list[str], tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*command, f"model.name={tiny / 'llama'}", "gate.max_drop.rougeL=1"]
    assert main([*words, "gate.baseline=nope"]) == 2
    assert "run 'nope': no run directory" in capsys.readouterr().err
    assert not Path("outputs").exists()
    assert main([*words, "gate.baseline=latest"]) == 2
    assert "gate.baseline=latest: when the gate is held, that is this run itself." in capsys.readouterr().err


def test_a_metric_that_nobody_gives(
    command: list[str], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gives_one.py").write_text(
        "from llmft.metrics.score import Score\ndef one(predictions, references): return [Score('one', 1.0, n=len(predictions), signature='x')]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    words = ["task.metrics.own.call=gives_one.one", "plugins=[gives_one]", "training.metric=two"]
    assert main([*command, f"model.name={tiny / 'llama'}", *words]) == 2
    assert "training.metric=two: no score of that name; the validation gave loss, rouge1, " in capsys.readouterr().err

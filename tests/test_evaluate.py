"""llmft eval through the command line: equal to what training measured, to a plain model, and to the tools by themselves."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from rouge_score.rouge_scorer import RougeScorer
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmft import evaluate
from llmft.cli.main import main
from llmft.errors import ModelError

ROWS = [
    {
        "document": f"Item {i} of the list holds the words red and {'blue' if i % 2 else 'green'}. More text.",
        "summary": f"Item {i}.",
    }
    for i in range(48)
]


@pytest.fixture(params=["none", "lora", "merged"])
def run(request: pytest.FixtureRequest, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run: trained in full, by an adapter, or by an adapter merged at the end."""
    monkeypatch.chdir(tmp_path)
    for name, rows in (("train", ROWS[:32]), ("validation", ROWS[32:40]), ("test", ROWS[40:])):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    adapter = ["adapter=none"] if request.param == "none" else ["adapter=lora", "adapter.r=4"]
    command = [
        "train",
        "task=summarization",
        f"model.name={tiny / 'llama'}",
        *(f"task.data.{name}={name}.jsonl" for name in ("train", "validation", "test")),
        *adapter,
        f"export.merge={str(request.param == 'merged').lower()}",
        "training.epochs=6",
        "optimizer.lr=2e-2",
        "generation.max_new_tokens=6",
        "hardware.precision=fp32",
    ]
    assert main(command) == 0
    return Path("outputs/latest").resolve()


def read_rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions/test.jsonl").read_text().splitlines()]


def test_eval_of_a_run_gives_what_training_measured(run: Path) -> None:
    assert main(["eval", "run=latest"]) == 0
    (folder,) = (run / "eval").iterdir()
    trained, scored = (json.loads((path / "results.json").read_text()) for path in (run, folder))
    assert [row["prediction"] for row in read_rows(folder)] == [row["prediction"] for row in read_rows(run)]
    assert scored["metrics"] == trained["metrics"]
    assert scored["baselines"] == trained["baselines"]


def test_the_saved_model_gives_the_same_texts_by_itself(run: Path, tiny: Path) -> None:
    folder = run / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if (folder / "adapter_config.json").exists():
        base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folder)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found = []
    for row in ROWS[40:]:
        messages = [{"role": "user", "content": f"Summarize the following text in one sentence.\n\n{row['document']}"}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        output = model.eval().generate(**ids, max_new_tokens=6, do_sample=False)
        found.append(tokenizer.decode(output[0, ids.input_ids.shape[1] :], skip_special_tokens=True).strip())
    assert found == [row["prediction"] for row in read_rows(run)]
    assert len(set(found)) > 1 or found[0]


def test_scores_are_those_of_rouge_score_itself(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=True)
    for which, rows in (("metrics", read_rows(run)), ("before", None)):
        if rows is None:
            rows = [json.loads(line) for line in (run / "predictions/test.before.jsonl").read_text().splitlines()]
        for name in ("rouge1", "rougeL"):
            values = [100 * scorer.score(row["references"][0], row["prediction"])[name].fmeasure for row in rows]
            assert results[which][name]["value"] == pytest.approx(sum(values) / len(values))
    change = results["paired"]["rougeL"]
    assert change["difference"] == pytest.approx(results["metrics"]["rougeL"]["value"] - results["before"]["rougeL"]["value"])
    assert change["low"] <= change["difference"] <= change["high"]


def test_a_plain_model_and_gates(run: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = [
        "eval",
        "task=summarization",
        f"model.name={tiny / 'llama'}",
        "task.data.test=test.jsonl",
        "generation.max_new_tokens=6",
    ]
    assert main([*plain, "output=plain", "hardware.precision=fp32"]) == 0
    before = [json.loads(line)["prediction"] for line in (run / "predictions/test.before.jsonl").read_text().splitlines()]
    assert [row["prediction"] for row in read_rows(Path("plain"))] == before
    assert main(["eval", "run=latest", "gate.min.rougeL=101"]) == 3
    assert "gate.min.rougeL=101: not met" in capsys.readouterr().err
    assert main(["eval", "run=latest", f"gate.baseline={run}", "gate.max_drop.rougeL=0"]) == 0
    assert main(["eval", "run=latest", "gate.min.rougeX=1"]) == 2
    assert main(["eval", "run=latest", "task.data.test=nowhere.jsonl"]) == 4


def test_a_folder_for_the_results(
    run: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", "run=latest", "output=scores"]
    with monkeypatch.context() as broken:
        broken.setattr(evaluate, "open_task", lambda *words: (_ for _ in ()).throw(ModelError("no such model")))
        assert main(words) == 4
    assert main(words) == 0  # it goes on although it failed: eval has no training.resume to ask for it
    assert capsys.readouterr().err.count("resuming " + str(Path("scores").resolve())) == 1
    assert main(words) == 2
    assert "output=scores: the run in scores is finished. Name another folder to repeat it." in capsys.readouterr().err

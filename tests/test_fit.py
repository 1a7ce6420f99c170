"""The loop in whole trainings: what goes into its steps, when it validates, and what ends it early."""

import json
from pathlib import Path

import pytest

from llmft.cli.main import main
from llmft.tasks.learn.text_decoder import TextDecoder


def test_micro_batches_do_not_change_the_result(command: list[str], tiny: Path) -> None:
    losses = []
    for tokens in (100_000, 200):
        root = f"output_root=micro-{tokens}"
        settings = ["hardware.precision=fp32", f"training.micro_tokens={tokens}", "training.max_steps=3"]
        assert main([*command, f"model.name={tiny / 'llama'}", root, *settings]) == 0
        rows = [json.loads(line) for line in Path(f"micro-{tokens}/latest/metrics.jsonl").read_text().splitlines()]
        losses.append([row["loss"] for row in rows])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_patience_ends_a_run_that_no_longer_improves(command: list[str], tiny: Path) -> None:
    settings = ["optimizer.lr=1e-12", "optimizer=sgd", "training.patience=2", "training.eval_every=1", "training.max_steps=50"]
    # at so small a rate nothing changes: the first validation is the best one, two more end the run
    assert main([*command, f"model.name={tiny / 'llama'}", *settings, "optimizer.lr=1e-30"]) == 0
    assert json.loads(Path("outputs/latest/results.json").read_text())["train"]["steps"] == 3


def test_never_is_never(command: list[str], tiny: Path) -> None:
    settings = ["training.eval_every=never", "training.max_steps=2", "training.baseline=false", "output_dir=n"]
    assert main([*command, f"model.name={tiny / 'llama'}", *settings]) == 0
    assert [row["kind"] for row in map(json.loads, Path("n/metrics.jsonl").read_text().splitlines())] == ["train", "train"]
    assert json.loads(Path("n/results.json").read_text())["train"]["validation_loss"] is None


def test_a_diverged_run_stops_before_the_update(
    command: list[str], tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loss = TextDecoder.loss
    taken = []

    def spoilt(self, documents):  # type: ignore[no-untyped-def]
        value = loss(self, documents)
        taken.append(value)
        return value * float("nan") if value.requires_grad and len(taken) > 12 else value

    monkeypatch.setattr(TextDecoder, "loss", spoilt)
    assert main([*command, f"model.name={tiny / 'gpt2'}"]) == 5
    said = capsys.readouterr().err
    assert "the weights were not updated, the last good checkpoint is" in said
    status = json.loads(Path("outputs/latest/status.json").read_text())
    assert (status["state"], status["exit"]) == ("diverged", 5)


def test_rows_on_one_text_are_in_the_same_steps(
    command: list[str], data: Path, colours: list[str], tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [" ".join(colours[(3 * place + text) % 10] for place in range(90)) for text in range(10)]
    rows = [{"text": f"{texts[i % 10]} {i}", "answer": colours[i // 10]} for i in range(60)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    steps: list[set[int]] = []
    cut = TextDecoder.cut

    def watched(learner: TextDecoder, documents: list, micro_tokens: int) -> list:
        if learner.sharing:  # not in the trial
            steps.append({(int(document.id) - 1) % 10 for document in documents})
        return cut(learner, documents, micro_tokens)

    monkeypatch.setattr(TextDecoder, "cut", watched)
    words = ["task.data.holdout=0", "training.batch_size=6", "training.shuffle=texts", "training.eval_every=never"]
    assert main([*command, f"model.name={tiny / 'llama'}", *words, "output_dir=out"]) == 0
    assert len(steps) == 30
    assert all(len(step) == 1 for step in steps)  # six questions on a text, six rows a step
    assert len({tuple(step) for step in steps[:10]}) == 10

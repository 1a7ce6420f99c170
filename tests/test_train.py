"""Whole trainings of tiny models through the command line: what they leave, and that none is lost."""

import errno
import json
import os
import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file

from llmft import fit, train
from llmft.cli.main import main
from llmft.runs import durable
from llmft.tasks.learn.text_decoder import TextDecoder

WORDS = ["red", "green", "blue", "black", "white", "brown", "pink", "grey", "gold", "teal"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Sixty rows whose targets follow from their sources."""
    path = tmp_path / "rows.jsonl"
    rows = [{"text": f"{WORDS[i % 10]} {WORDS[i // 10]} {i}", "answer": f"{WORDS[i // 10]} {WORDS[i % 10]}"} for i in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def command(tiny: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A training of 12 steps, four an epoch, with a checkpoint every five."""
    monkeypatch.chdir(tmp_path)
    return [
        "train",
        "task=summarization",
        f"task.data.train={data}",
        "task.source={text}",
        "task.target={answer}",
        "task.data.holdout=0.1",
        "adapter=none",
        "training.batch_size=16",
        "training.epochs=3",
        "training.save_every=5",
        "generation.max_new_tokens=4",
        "optimizer.lr=5e-3",
        "hardware.threads=1",
    ]


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch, number: int = signal.SIGINT) -> None:
    """Send the process a signal in the middle of a step: between two of its micro-batches."""
    check, take_step = fit.signals.check, fit.take_step

    def take(work: fit.Work, progress: fit.Progress) -> None:
        if work.position.step == step:
            os.kill(os.getpid(), number)
        take_step(work, progress)

    monkeypatch.setattr(fit, "take_step", take)
    monkeypatch.setattr(fit.signals, "check", check)


def weights(run: Path, adapter: bool) -> dict:
    """The final weights of a run."""
    return load_file(run / "model" / ("adapter_model.safetensors" if adapter else "model.safetensors"))


CASES = {
    "gpt2 with dropout": ("gpt2", ["adapter=none"]),
    "gpt2, four micro-batches": ("gpt2", ["adapter=none", "training.micro_tokens=150"]),
    "llama, lora with dropout": ("llama", ["adapter=lora", "adapter.dropout=0.1", "adapter.r=4"]),
    "llama, what a frozen layer gives is kept": ("llama", ["adapter=none", "adapter.frozen_layers=1"]),
    "llama, muon, sampling in validation": (
        "llama",
        ["adapter=none", "optimizer=muon", "training.metric=rougeL", "generation.temperature=1.0"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_interrupted_run_goes_on_and_ends_in_the_same_bytes(
    case: str, command: list[str], tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, settings = CASES[case]
    command = [*command, f"model.name={tiny / model}", *settings]
    assert main([*command, "output_root=whole"]) == 0
    with monkeypatch.context() as patch:
        interrupt_at(7, patch)
        assert main([*command, "output_root=cut"]) == 130
    (run,) = Path("cut").glob("2*")
    status = json.loads((run / "status.json").read_text())
    assert (status["state"], status["exit"], status["step"]) == ("stopped", 130, 7)
    capsys.readouterr()
    assert main([*command, "output_root=cut"]) == 0
    first_line = capsys.readouterr().err.splitlines()[0]
    assert first_line.startswith("resuming ")
    assert run.name in first_line
    assert "step 7" in first_line
    assert [path for path in Path("cut").iterdir() if not path.is_symlink()] == [run]
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines() if '"train"' in line]
    assert steps == list(range(1, 13))
    (whole,) = Path("whole").glob("2*")
    expected, found = (weights(each, "lora" in case) for each in (whole, run))
    assert expected.keys() == found.keys()
    assert all(expected[name].equal(found[name]) for name in expected)
    scores = [json.loads((each / "results.json").read_text())["metrics"] for each in (whole, run)]
    assert scores[0] == scores[1]


def test_a_killed_run_goes_on_from_its_last_checkpoint(
    command: list[str], tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*command, f"model.name={tiny / 'gpt2'}"]
    assert main([*command, "output_root=whole"]) == 0
    if (child := os.fork()) == 0:  # a child, so that SIGKILL ends it and not the test
        with monkeypatch.context() as patch:
            interrupt_at(7, patch, signal.SIGKILL)
            main([*command, "output_root=killed"])
        os._exit(0)
    _, how = os.waitpid(child, 0)
    assert os.WTERMSIG(how) == signal.SIGKILL
    capsys.readouterr()
    assert main([*command, "output_root=killed"]) == 0
    assert "from step 5" in capsys.readouterr().err.splitlines()[0]
    (whole,), (killed,) = Path("whole").glob("2*"), Path("killed").glob("2*")
    expected, found = weights(whole, False), weights(killed, False)
    assert all(expected[name].equal(found[name]) for name in expected)


def test_a_damaged_checkpoint_is_set_aside(
    command: list[str], tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*command, f"model.name={tiny / 'gpt2'}"]
    with monkeypatch.context() as patch:
        interrupt_at(7, patch)
        assert main(command) == 130
    newest = max(Path("outputs/latest/checkpoints").glob("step-*"))
    data = bytearray((newest / "weights.safetensors").read_bytes())
    data[len(data) // 2] ^= 1
    (newest / "weights.safetensors").write_bytes(data)
    capsys.readouterr()
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "from step 5" in said.splitlines()[0]
    assert f"checkpoint {newest.name} is damaged" in said


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


def test_the_run_can_be_repeated_from_its_own_folder(command: list[str], tiny: Path) -> None:
    assert main([*command, f"model.name={tiny / 'llama'}"]) == 0
    first = Path("outputs/latest").resolve()
    assert main(["train", "--config-dir", str(first), "--config-name", "rerun"]) == 0
    second = Path("outputs/latest").resolve()
    assert first != second
    expected, found = weights(first, False), weights(second, False)
    assert all(expected[name].equal(found[name]) for name in expected)


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


def test_never_is_never(command: list[str], tiny: Path) -> None:
    settings = ["training.eval_every=never", "training.max_steps=2", "training.baseline=false", "output_dir=n"]
    assert main([*command, f"model.name={tiny / 'llama'}", *settings]) == 0
    assert [row["kind"] for row in map(json.loads, Path("n/metrics.jsonl").read_text().splitlines())] == ["train", "train"]
    assert json.loads(Path("n/results.json").read_text())["train"]["validation_loss"] is None


def test_a_full_disk_loses_nothing(
    command: list[str], tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*command, f"model.name={tiny / 'llama'}", "training.baseline=false"]
    with monkeypatch.context() as full:
        full.setattr(train, "export", lambda *_: (_ for _ in ()).throw(durable.unwritable(Path("outputs/x"), errno.ENOSPC)))
        assert main(words) == 1
    assert "then repeat the command" in capsys.readouterr().err
    assert main(words) == 0
    assert " from step 12\n" in capsys.readouterr().err


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


def test_rows_on_one_text_are_in_the_same_steps(
    command: list[str], data: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [" ".join(WORDS[(3 * place + text) % 10] for place in range(90)) for text in range(10)]
    rows = [{"text": f"{texts[i % 10]} {i}", "answer": WORDS[i // 10]} for i in range(60)]
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

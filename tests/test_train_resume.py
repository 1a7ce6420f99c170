"""Whole trainings repeated: none that was cut short is lost, and each ends in the bytes of one that nothing stopped."""

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


def test_the_run_can_be_repeated_from_its_own_folder(command: list[str], tiny: Path) -> None:
    assert main([*command, f"model.name={tiny / 'llama'}"]) == 0
    first = Path("outputs/latest").resolve()
    assert main(["train", "--config-dir", str(first), "--config-name", "rerun"]) == 0
    second = Path("outputs/latest").resolve()
    assert first != second
    expected, found = weights(first, False), weights(second, False)
    assert all(expected[name].equal(found[name]) for name in expected)

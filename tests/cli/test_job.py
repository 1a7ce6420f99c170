"""From a command line to the dataclass that the work gets, and from how it ends to the exit code."""

import errno
import signal
from pathlib import Path

import pytest
import yaml

from llmft.config import compose
from llmft.config.dump import config_yaml, rerun_yaml
from llmft.config.schema import AdapterKind, Device, TrainRun
from llmft.errors import DataError, GateNotMet, Stopped
from llmft.runs import signals


def test_train_gets_the_configuration(llmft):
    assert llmft("train", "optimizer.lr=3e-5", "hardware=cpu", "task.source={article}", "gate.min.rougeL=30") == 0
    (run,) = llmft.runs
    assert isinstance(run, TrainRun)
    assert (run.optimizer.lr, run.hardware.device, run.task.source) == (3e-5, Device.cpu, "{article}")
    assert (run.gate.min, run.adapter.name, run.task.name) == ({"rougeL": 30.0}, AdapterKind.lora, "summarization")
    assert llmft.commands == [
        ["llmft", "train", "optimizer.lr=3e-5", "hardware=cpu", "task.source={article}", "gate.min.rougeL=30"]
    ]


def test_nothing_is_written_and_nothing_said(llmft, tmp_path):
    assert llmft("train") == 0
    assert list(tmp_path.iterdir()) == []
    assert (llmft.out, llmft.err) == ("", "")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("a.jsonl", ["a.jsonl"]),
        ("[a.jsonl,b.jsonl]", ["a.jsonl", "b.jsonl"]),
        ("null", None),
        ("新聞 1.jsonl", ["新聞 1.jsonl"]),
    ],
)
def test_one_name_or_several(llmft, typed, expected):
    assert llmft("train", f"task.data.train={typed}") == 0
    assert llmft.runs[0].task.data.train == expected


def test_plus_before_something_known_is_no_mistake(llmft):
    assert llmft("train", "+experiment=smoke_summarization", "+optimizer.lr=1", "++seed=3") == 0
    assert (llmft.runs[0].training.max_steps, llmft.runs[0].optimizer.lr, llmft.runs[0].seed) == (4, 1.0, 3)


def test_a_metric_of_ones_own(llmft):
    assert llmft("train", "task.metrics={mine: {call: pack.score}}", "plugins=[pack]") == 0
    assert llmft.runs[0].task.metrics == {"rouge": {"use_stemmer": True}, "health": {}, "mine": {"call": "pack.score"}}
    assert llmft("train", "task.metrics.mine.call=pack.score", "plugins=[pack]") == 0
    assert llmft.runs[0].task.metrics["mine"] == {"call": "pack.score"}


def test_leaving_out(llmft):
    assert llmft("train", "~adapter", "~task.metrics.rouge", "~task.metrics.health") == 0
    assert (llmft.runs[0].adapter.name, llmft.runs[0].task.metrics) == (AdapterKind.none, {})


def test_literal_interpolation_survives(llmft):
    assert llmft("train", r"task.prompt=cost \${source}") == 0
    assert llmft.runs[0].task.prompt == "cost ${source}"


def test_interpolation(llmft, monkeypatch):
    monkeypatch.setenv("CORPUS", "news")
    assert llmft("train", "task.data.train=${oc.env:CORPUS}/a.jsonl", "output_dir=runs/${seed}") == 0
    assert (llmft.runs[0].task.data.train, llmft.runs[0].output_dir) == (["news/a.jsonl"], "runs/42")
    assert llmft("train", "task.name=${oc.env:NO_SUCH_VARIABLE}") == 2
    assert "NO_SUCH_VARIABLE" in llmft.err
    assert llmft.err.startswith("error: task.name: ")
    assert llmft("train", "task.name=${nothing.there}") == 2
    assert "nothing.there" in llmft.err


def test_cfg_shows_and_does_nothing(llmft):
    assert llmft("train", "seed=7", "--cfg", "job") == 0
    assert yaml.safe_load(llmft.out)["seed"] == 7
    assert llmft.runs == []


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (DataError("news.jsonl:3: no column"), 4, "error: news.jsonl:3: no column\n"),
        (GateNotMet("rougeL 20 < 30"), 3, "error: rougeL 20 < 30\n"),
        (Stopped(15), 75, "stopped by SIGTERM; go on with: llmft train\n"),
        (Stopped(2), 130, "stopped by SIGINT\n"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C\n"),
        (OSError(errno.ENOSPC, "No space left on device", "outputs/x"), 1, "error: outputs/x: No space left on device. "),
    ],
)
def test_how_it_ends(llmft, raised, code, said):
    llmft.result = raised
    assert llmft("train") == code
    assert llmft.err.startswith(said)
    assert "Traceback" not in llmft.err


class OutOfMemoryError(RuntimeError):
    """torch.OutOfMemoryError by its name."""


@pytest.mark.parametrize(
    "raised",
    [
        MemoryError(),
        OutOfMemoryError("CUDA"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate"),
    ],
)
def test_memory(llmft, raised):
    llmft.result = raised
    assert llmft("train") == 6
    assert "training.micro_tokens" in llmft.err
    assert "Traceback" not in llmft.err


def test_a_bug_shows_its_traceback_without_hydra(llmft):
    llmft.result = ZeroDivisionError("a bug")
    assert llmft("train") == 1
    assert "ZeroDivisionError: a bug" in llmft.err
    assert "hydra" not in llmft.err.replace("_hydra", "")


def test_secrets_are_neither_accepted_nor_shown(llmft):
    token = "hf_" + "a1B2" * 8
    assert llmft("train", f"model.revision={token}") == 2
    assert llmft.err.startswith("error: model.revision: looks like a secret")
    assert llmft("train", f"optimizer.lr={token}") == 2
    assert token not in llmft.err
    assert llmft.runs == []


def make_run(path: Path, run: TrainRun) -> Path:
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(config_yaml(run), encoding="utf-8")
    (path / "rerun.yaml").write_text(rerun_yaml(run), encoding="utf-8")
    (path / "status.json").write_text("{}", encoding="utf-8")
    return path


@pytest.fixture
def run_folder(llmft, tmp_path):
    """A training run with settings of its own, as it was recorded."""
    code = llmft(
        "train", "seed=7", "task.prompt=Now: ${oc.env:HOME,x} {source}", r"task.system=costs \${5}", "generation.max_new_tokens=33",
        "generation.num_beams=2", "task.data.train=a.jsonl", "plugins=[mine]", "gate.min.rougeL=99", "hardware=cpu",
    )  # fmt: skip
    assert code == 0
    return make_run(tmp_path / "outputs" / "r1", llmft.runs[0])


def test_eval_begins_with_the_run(llmft, run_folder):
    recorded = yaml.safe_load((run_folder / "config.yaml").read_text(encoding="utf-8"))
    assert llmft("eval", "run=outputs/r1") == 0
    run = llmft.runs[0]
    assert run.run == str(run_folder)
    assert (run.seed, run.generation.max_new_tokens, run.generation.num_beams) == (7, 33, 2)
    assert (run.task.prompt, run.task.system) == (recorded["task"]["prompt"], "costs ${5}")
    assert (run.task.data.train, run.hardware.device) == (["a.jsonl"], Device.cpu)
    assert (run.model.name, run.task.metrics) == (
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        {"rouge": {"use_stemmer": True}, "health": {}},
    )
    assert (run.plugins, run.gate.min) == ([], {})


def test_the_command_line_lies_on_top(llmft, run_folder):
    words = (
        "run=outputs/r1",
        "generation.num_beams=1",
        "gate.min.rougeL=5",
        "split=validation",
        "task.metrics.rouge.use_stemmer=false",
    )
    assert llmft("eval", *words) == 0
    run = llmft.runs[0]
    assert (run.generation.num_beams, run.generation.max_new_tokens) == (1, 33)  # 1 is also the schema's default
    assert (run.gate.min, run.split.name, run.task.metrics) == (
        {"rougeL": 5.0},
        "validation",
        {"rouge": {"use_stemmer": False}, "health": {}},
    )


def test_a_chosen_file_lies_on_top(llmft, run_folder):
    assert llmft("eval", "run=outputs/r1", "generation=greedy", "hardware=auto") == 0
    run = llmft.runs[0]
    assert (run.generation.num_beams, run.generation.max_new_tokens, run.hardware.device) == (1, 33, Device.auto)
    assert llmft("eval", "run=outputs/r1", "task=summarization") == 0
    assert (llmft.runs[0].task.system, llmft.runs[0].task.data.train) == (None, None)  # the task as a whole


def test_cfg_shows_a_run_with_the_command_line_on_top(llmft, run_folder):
    assert llmft("eval", "run=outputs/r1", "generation.num_beams=1", "--cfg", "job") == 0
    shown = yaml.safe_load(llmft.out)
    assert (shown["generation"]["num_beams"], shown["generation"]["max_new_tokens"], shown["seed"]) == (1, 33, 7)


def test_a_primary_file_of_ones_own(llmft, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/nightly.yaml").write_text("defaults:\n  - train\n  - _self_\nseed: 9\n", encoding="utf-8")
    assert llmft("train", "--config-dir", "mine", "--config-name", "nightly", "optimizer.lr=1", "adapter=none") == 0
    assert (llmft.runs[0].seed, llmft.runs[0].optimizer.lr, llmft.runs[0].adapter.name) == (9, 1.0, AdapterKind.none)


def test_latest_is_resolved(llmft, run_folder):
    (run_folder.parent / "latest").symlink_to("r1")
    assert llmft("predict", "run=latest", "input=x.txt") == 0
    assert (llmft.runs[0].run, llmft.runs[0].input, llmft.runs[0].seed) == (str(run_folder), "x.txt", 7)


def test_without_a_run_task_and_model_are_needed(llmft):
    for words in ((), ("model=gpt2",), ("task=summarization",), ("model.name=x",)):
        assert llmft("eval", *words) == 2
        assert llmft.err == "error: llmft eval needs a run, run=latest or run=DIRECTORY, or a plain model: task=... model=...\n"
    assert llmft("eval", "task=summarization", "model=gpt2") == 0
    assert llmft.runs[0].model.name == "openai-community/gpt2"


def test_a_foreign_key_in_a_run_is_reported_with_its_line(llmft, run_folder):
    path = run_folder / "config.yaml"
    path.write_text("seed: 1\nmodell:\n  name: x\n", encoding="utf-8")
    assert llmft("eval", "run=outputs/r1") == 2
    assert f"{path}:2: llmft train has no setting modell." in llmft.err
    path.write_text("task:\n  metrics:\n    rouge:\n      _target_: os.system\n", encoding="utf-8")
    assert llmft("eval", "run=outputs/r1") == 2
    assert "found _target_" in llmft.err


def test_a_whole_model_is_not_exchanged_in_silence(llmft, run_folder):
    (run_folder / "model").mkdir()
    (run_folder / "model" / "adapter_config.json").touch()
    assert llmft("eval", "run=outputs/r1", "model.name=moved/base") == 0
    assert llmft.runs[0].model.name == "moved/base"
    (run_folder / "model" / "config.json").touch()
    for command in ("eval", "predict"):
        assert llmft(command, "run=outputs/r1", "model=gpt2") == 2
        assert llmft.err == (
            f"error: model.name=openai-community/gpt2: the run {run_folder.resolve()} has a model of its own."
            f" Leave it out, or leave out run= to {command} with that model.\n"
        )


def test_an_evaluation_is_no_run(llmft, run_folder):
    (run_folder / "config.yaml").write_text("run: outputs/r0\nsplit: test\n")
    assert llmft("predict", "run=outputs/r1", "input=x.txt") == 2
    assert "an evaluation, not a training run. Name the run: outputs/r0\n" in llmft.err


def test_rerun_repeats_the_run(llmft, run_folder):
    before = yaml.safe_load((run_folder / "config.yaml").read_text(encoding="utf-8"))
    assert llmft("train", "--config-dir", str(run_folder), "--config-name", "rerun", "plugins=[mine]") == 0
    assert yaml.safe_load(config_yaml(llmft.runs[0])) == before


@pytest.mark.parametrize("line", ["plugins: [os]", "seed: ${oc.env:HOME}", "hydra: {verbose: true}"])
def test_a_run_directory_brings_values_only(llmft, run_folder, line):
    path = run_folder / "rerun.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("seed: 7", line), encoding="utf-8")
    assert llmft("train", "--config-dir", str(run_folder), "--config-name", "rerun") == 2
    assert f"error: {path}: found " in llmft.err
    assert "a run directory holds values only" in llmft.err


def test_a_signal_while_settings_are_read_waits_until_they_are(llmft, monkeypatch):
    """Raised in the middle of OmegaConf, Stopped came out as an AttributeError, and the exit code was 2."""
    read = compose.preview
    finished = []

    def preview(*words):
        signals._receive(signal.SIGTERM, None)
        found = read(*words)
        finished.append(found.seed)
        return found

    monkeypatch.setattr(signals, "_stopping", False)
    monkeypatch.setattr(signals, "_closed", False)  # which the command before this one did
    monkeypatch.setattr(compose, "preview", preview)
    assert llmft("train") == 75
    assert finished == [42]
    assert llmft.runs == []
    assert llmft.err == "stopped by SIGTERM; go on with: llmft train\n"

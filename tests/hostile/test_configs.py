"""Settings that want code run: each is refused in a sentence, and no canary sings.

The canaries: a module that leaves a file when it is imported and another when a function of it is called, a command for a
shell that leaves one, and Python's audit events for starting processes and connections. Whom llmft trusts stands in
SECURITY.md: the command line, the user's own folders of YAML for values, packages named in plugins. Run directories, model
folders and data are never asked for code.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile_cli import command

from llmft.config.bind import bind_all
from llmft.config.schema import TrainRun
from llmft.tasks.bound import bind_task
from llmft.training.bound import bind_optimizer, bind_schedule

WATCHED = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "shutil.rmtree", "pickle.find_class")
BASE = ["model.name=m", "task.data.train=a.jsonl"]
heard: list[str] | None = None


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if heard is not None and (event in WATCHED or (event == "import" and "canary" in str(arguments[0]))):
        heard.append(f"{event} {arguments}")


sys.addaudithook(_listen)  # cannot be taken away again: it is deaf outside these tests


@pytest.fixture
def cage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a canary that can be imported; afterwards it must have stayed silent."""
    global heard
    for name in ("canary_module", "canary_package"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(
            f"import pathlib\npathlib.Path({str(tmp_path)!r}, 'sang').touch()\ndef sing(*a, **k):\n    pathlib.Path({str(tmp_path)!r}, 'sang').touch()\n"
        )
        (tmp_path / name / "x.yaml").write_text("seed: 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("CANARY_SECRET", "tweet-Tweet-42")
    (tmp_path / "conf").mkdir()
    heard = []
    yield tmp_path
    noises, heard = heard, None
    assert noises == []
    assert not (tmp_path / "sang").exists()
    assert not [name for name in sys.modules if name.startswith("canary")]


def bind_run(run: Any) -> None:
    """What every command does first: turn names into functions."""
    attempts = [lambda: bind_task(run.task, run.plugins)]
    if isinstance(run, TrainRun):
        attempts += [lambda: bind_optimizer(run.optimizer, run.plugins), lambda: bind_schedule(run.schedule, run.plugins)]
    bind_all(*attempts)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# Names of code, in every setting that takes one.
CODE = ["os.system", "builtins.eval", "builtins.exec", "subprocess.Popen", "pickle.loads", "torch.load", "canary_module.sing",
        "hydra.utils.instantiate", "importlib.import_module", "posix.system", "llmft.train.json", "llmft.train.os.system",
        "llmft.runs.durable.shutil.rmtree", "llmft.runs.durable.write_text", "llmft.runs.durable.remove_leftovers", "llmft.cli.main.main",
        "llmft.config.bind.importlib.import_module", "llmft.data.source.Path", "llmft.runs.provenance.subprocess.run", "os..system",
        "llmft.metrics.bleu.sacrebleu", "canary_module.__init__.sing", ".os.system", "os.system."]  # fmt: skip
PLACES = ["optimizer.name={}", "schedule.name={}", "task.row={}", "task.metrics={{m: {{call: {}}}}}", "task.metrics.rouge.call={}",
          "task.baselines=[{}]", "task.data.builtin={}"]  # fmt: skip
NAMED = [place.format(code) for place in PLACES for code in CODE]

TARGETS = ["{_target_: os.system}", "{_target_: canary_module.sing, _args_: [1]}", "{a: {b: [{_target_: canary_module.sing}]}}",
           "{_partial_: true, _target_: os.system}", "{_recursive_: true}", "{_convert_: all}"]  # fmt: skip
HOLDERS = ["optimizer.options", "schedule.options", "task.metrics.rouge", "task.metrics", "model.scratch", "optimizer", "model", "task",
           "task.data.train", "adapter.target_modules", "gate.min", "+hydra.launcher.x", "+hydra.sweeper.x", "task.references", "training"]  # fmt: skip
TARGETED = [f"{holder}={target}" for holder in HOLDERS for target in TARGETS]
TARGETED += [
    f"++{key}._target_=canary_module.sing"
    for key in ("model", "optimizer", "optimizer.options", "task.metrics.rouge", "hydra.launcher")
]

OF_HYDRA = [
    "hydra.searchpath=[pkg://canary_package]", "hydra.searchpath=[file:///]", "+hydra.searchpath=[pkg://canary_package]",
    "hydra.run.dir=/", "hydra.sweep.dir=/", "hydra.sweep.subdir=../..", "hydra.job.chdir=true", "hydra.output_subdir=.",
    "hydra.job.env_set.LD_PRELOAD=/x.so", "+hydra.job.env_set={PYTHONPATH: .}", "hydra.job.env_copy=[HF_TOKEN]",
    "hydra/job_logging=custom", "hydra/hydra_logging=default", "hydra.job_logging={version: 1, handlers: {a: {(): os.system}}}",
    "hydra.job_logging.handlers.file.class=canary_module.sing", "+hydra.hydra_logging.formatters.a.()=canary_module.sing",
    "+hydra.callbacks.a._target_=canary_module.sing", "+hydra.callbacks={a: {_target_: os.system}}", "hydra/launcher=canary",
    "hydra/sweeper=canary_module", "hydra.launcher._target_=canary_module.sing", "hydra.sweeper._target_=os.system",
    "hydra.mode=MULTIRUN", "hydra.runtime.cwd=/", "hydra.hydra_help.template=x", "hydra/help=x", "hydra/env=x", "hydra/output=x",
    "hydra={job: {chdir: true}}", "hydra.overrides.task=[seed=1]", "schema/train=eval", "hydra/launcher@x=basic",
    "+hydra@x=y", "hydra.job.config.override_dirname.item_sep=/", "~hydra.job_logging", "~hydra", "hydra.help.app_name=x",
]  # fmt: skip

NO_CODE = [*NAMED, *TARGETED, *OF_HYDRA]


@pytest.mark.parametrize("word", NO_CODE[::9])
def test_a_command_line_names_no_code(cage, word):
    command(["train", *BASE, word], cage, bind_run).refused()


@pytest.mark.torture
@pytest.mark.parametrize("part", range(6))
def test_every_command_line_names_no_code(cage, part):
    assert len(NO_CODE) > 250
    for word in NO_CODE[part::6]:
        assert command(["train", *BASE, word], cage, bind_run).refused(), word


# YAML of the user's own, or what was taken for it: values only.
FILES = [
    "plugins: !!python/object/apply:os.system ['touch sang']",
    "seed: !!python/name:canary_module.sing",
    "seed: !!python/object/new:canary_module.sing []",
    "seed: !!python/module:canary_module",
    "!!python/object:canary_module.sing {}",
    "task: {metrics: {m: {_target_: canary_module.sing}}}",
    "task:\n  metrics:\n    m:\n      a:\n        - b:\n            _target_: os.system",
    "optimizer: {options: {_target_: canary_module.sing}}",
    "hydra: {searchpath: [pkg://canary_package]}",
    "hydra: {searchpath: ['file:///']}",
    "hydra: {callbacks: {a: {_target_: canary_module.sing}}}",
    "hydra: {job_logging: {version: 1, handlers: {a: {(): canary_module.sing}}}}",
    "hydra: {hydra_logging: {version: 1, formatters: {a: {(): canary_module.sing}}}}",
    "hydra: {job: {env_set: {LD_PRELOAD: x}}}",
    "hydra: {run: {dir: /}}",
    "hydra: {launcher: {_target_: canary_module.sing}}",
    "hydra: {sweeper: {_target_: canary_module.sing, params: {}}}",
    "<<: {hydra: {callbacks: {a: {_target_: canary_module.sing}}}}",
    "x: &a {callbacks: {a: {_target_: canary_module.sing}}}\nhydra: *a",
    "hydra:\n  <<: {callbacks: {a: {_target_: canary_module.sing}}}",
    "hydra: ${oc.create:{callbacks:{a:{_target_:canary_module.sing}}}}",
    "defaults:\n  - override hydra/job_logging: mine",
    "defaults:\n  - override hydra/launcher: mine",
    "defaults:\n  - /task@hydra.callbacks.a: mine",
    "defaults:\n  - /task@hydra: mine",
    "defaults:\n  - /task@_global_.hydra.callbacks: mine",
    "optimizer: {name: os.system}",
    "optimizer: {name: canary_module.sing}",
    "task: {row: canary_module.sing}",
    "task: {metrics: {m: {call: canary_module.sing}}}",
    "task: {metrics: {m: {call: llmft.runs.durable.write_text}}}",
    "task: {data: {builtin: canary_module.sing}}",
    "task: {baselines: [canary_module.sing]}",
    "model: ${oc.create:{trust_remote_code:true}}",
    "model: {trust_remote_code: true}",
    "# @package hydra\ncallbacks: {a: {_target_: canary_module.sing}}",
    "# @package hydra.callbacks.a\n_target_: canary_module.sing",
    "# @package hydra.job_logging\nhandlers: {}",
]


@pytest.mark.parametrize("text", FILES)
def test_a_file_names_no_code(cage, text):
    write(
        cage / "conf/task/mine.yaml",
        "# @package _global_\ntask: {name: x}\n" if "defaults" not in text else "_target_: canary_module.sing\n",
    )
    write(cage / "conf/hydra/launcher/mine.yaml", "_target_: canary_module.sing\n")
    write(cage / "conf/hydra/job_logging/mine.yaml", "handlers: {a: {(): canary_module.sing}}\n")
    head = "" if text.startswith("# @") else "# @package _global_\n"
    write(cage / "conf/experiment/x.yaml", head + text + "\n")
    command(["train", "--config-dir=conf", "experiment=x", *BASE], cage, bind_run).refused()


@pytest.mark.parametrize("text", [text for text in FILES if not text.startswith("# @") and "override" not in text])
def test_a_primary_file_names_no_code(cage, text):
    write(cage / "conf/task/mine.yaml", "_target_: canary_module.sing\n")
    merged = text if text.startswith("defaults") else f"defaults: [schema/train, _self_]\n{text}"
    merged = text.replace("defaults:\n", "defaults:\n  - schema/train\n") if text.startswith("defaults") else merged
    write(cage / "conf/mine.yaml", merged + "\n")
    command(["train", "--config-dir=conf", "--config-name=mine", *BASE], cage, bind_run).refused()


@pytest.mark.parametrize("value", ["mine.yaml", "good,evil", "evil,good", "glob(*)", "choice(good,evil)"])
def test_no_way_of_choosing_a_file_passes_it_by(cage, value):
    evil = "# @package _global_\nhydra: {job_logging: {handlers: {a: {(): canary_module.sing}}}}\n"
    write(cage / "conf/experiment/good.yaml", "# @package _global_\nseed: 1\n")
    for name in ("evil", "mine"):
        write(cage / f"conf/experiment/{name}.yaml", evil)
    words = ["train", "--config-dir=conf", f"experiment={value}", *BASE]
    said = command(words if value == "mine.yaml" else [*words, "-m"], cage, bind_run)
    assert "hydra.job_logging.handlers.a.(): cannot be set from a YAML file" in said.refused()


# Run directories, which may have come from anybody.
CONFIG = "task:\n  name: x\nmodel:\n  name: m\n"
REFUSED_OF_A_RUN = [
    CONFIG + "optimizer: {name: canary_module.sing, _target_: os.system}\n",
    "task:\n  row: canary_module.sing\nmodel: {name: m}\n",
    "task:\n  row: llmft.cli.main.main\nmodel: {name: m}\n",
    "task:\n  metrics: {m: {call: canary_module.sing}}\nmodel: {name: m}\n",
    "task:\n  metrics: {m: {call: llmft.runs.durable.write_text}}\nmodel: {name: m}\n",
    "task:\n  metrics: {m: {_target_: canary_module.sing}}\nmodel: {name: m}\n",
    "task:\n  baselines: [os.system]\nmodel: {name: m}\n",
    "task:\n  data: {builtin: canary_module.sing}\nmodel: {name: m}\n",
    CONFIG + "hydra: {callbacks: {a: {_target_: canary_module.sing}}}\n",
    CONFIG + "<<: {hydra: {searchpath: [pkg://canary_package]}}\n",
    CONFIG + "run: other\n",
    CONFIG + "output: /etc/cron.d/x\n",
    CONFIG + "input: /etc/passwd\n",
    CONFIG + "predictions: x\n",
    "task: {name: x}\nmodel: {name: m, trust_remote_code: true}\n",
    CONFIG + "trust: true\n",
    CONFIG + "seed: !!python/object/apply:os.system ['touch sang']\n",
    CONFIG + "seed: ${oc.env:CANARY_SECRET}\n",
    "- a\n", "", "\x00", "\xff", "a: &a [*a]", "[" * 9999, "x: " + "y" * (1 << 20),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param(name, text, id=f"{name}-{number}", marks=[pytest.mark.torture] if (number + shift) % 2 else [])
        for number, text in enumerate(REFUSED_OF_A_RUN)
        for shift, name in enumerate(["eval", "predict"])
    ],
)
def test_a_run_names_no_code(cage, name, text):
    write(cage / "run/status.json", "{}")
    (cage / "run/config.yaml").write_bytes(text.encode("latin-1"))
    err = command([name, "run=run"], cage, bind_run).refused()
    assert "tweet" not in err


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("plugins: [canary_module]", lambda run: run.plugins == []),
        ("output_root: /etc", lambda run: run.output_root == "outputs"),
        ("output_dir: /etc/x", lambda run: not hasattr(run, "output_dir")),
        ("gate: {min: {rougeL: 99.0}}", lambda run: run.gate.min == {}),
        ("optimizer: {name: canary_module.sing}", lambda run: not hasattr(run, "optimizer")),
        (
            "task: {prompt: '${oc.env:CANARY_SECRET} {source}'}",
            lambda run: run.task.prompt == "${oc.env:CANARY_SECRET} {source}",
        ),
    ],
)
def test_what_a_run_says_of_trust_and_places_does_not_count(cage, line, kept):
    write(cage / "run/status.json", "{}")
    write(cage / "run/config.yaml", f"{'' if line.startswith('task') else 'task: {name: x}'}\nmodel: {{name: m}}\n{line}\n")
    said = command(["eval", "run=run"], cage, bind_run)
    said.check()
    assert said.code == 0, said.err
    assert kept(said.runs[0])


@pytest.mark.parametrize("marker", ["status.json", "results.json", "config.json", "adapter_config.json"])
@pytest.mark.parametrize(
    "line",
    ["plugins: [canary_module]", "hydra: {verbose: true}", "hydra: {searchpath: [pkg://canary_package]}", "output_dir: /etc/x",
     "task: {prompt: '${oc.env:CANARY_SECRET}'}", "model: {trust_remote_code: true}", "optimizer: {name: canary_module.sing}"],
)  # fmt: skip
def test_rerun_repeats_values_alone(cage, marker, line):
    write(cage / "run" / marker, "{}")
    write(cage / "run/rerun.yaml", f"defaults:\n- schema/train\n- _self_\n{line}\n")
    err = command(["train", "--config-dir=run", "--config-name=rerun", *BASE], cage, bind_run).refused()
    assert "tweet" not in err


def test_files_beside_rerun_are_as_little_trusted(cage):
    write(cage / "run/status.json", "{}")
    write(cage / "run/rerun.yaml", "defaults: [schema/train, _self_]\n")
    write(cage / "run/task/theirs.yaml", "name: x\nsource: ${oc.env:CANARY_SECRET}\n")
    err = command(["train", "--config-dir=run", "task=theirs", *BASE], cage).refused()
    assert "found a value to be resolved" in err


def test_a_folder_of_settings_in_a_run_that_one_stands_in(cage):
    """What the card of a model proposes: llmft predict run=. from its folder."""
    write(cage / "run/status.json", "{}")
    write(cage / "run/config.yaml", CONFIG)
    write(cage / "run/llmft_conf/task/theirs.yaml", "name: x\nsource: ${oc.env:CANARY_SECRET}\n")
    assert command(["predict", "run=."], cage / "run").runs[0].task.source == "{source}"
    assert "found a value to be resolved" in command(["predict", "run=.", "task=theirs"], cage / "run").refused()


def test_secrets_are_no_values(cage, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "an-unusual-Token-7")
    for word in ("task.prompt=${oc.env:HF_TOKEN}", "task.prompt='x ${oc.env:HF_TOKEN} y'", "model.revision=an-unusual-Token-7",
                 "optimizer.options={a: [{b: '${oc.env:HF_TOKEN}'}]}", "output_root=${oc.env:HF_TOKEN}/x"):  # fmt: skip
        err = command(["train", *BASE, word], cage).refused()
        assert "holds the secret in the environment variable HF_TOKEN" in err
        assert "an-unusual" not in err
    write(cage / "conf/experiment/x.yaml", "# @package _global_\ntask:\n  prompt: ${oc.env:HF_TOKEN}\n")
    assert "HF_TOKEN" in command(["train", "--config-dir=conf", "experiment=x", *BASE], cage).refused()
    assert (
        "an-unusual" not in command(["train", "--config-dir=conf", "experiment=x", *BASE, "--cfg=job", "--resolve"], cage).out
    )


@pytest.mark.parametrize(
    "name", ["../run\x1b[31m", "a\nb", "latest/../../x", "/dev/null", "/etc", "", " ", "\u202e", "x" * 5000, "~", "$HOME"]
)
def test_names_of_runs_are_names(cage, name):
    err = command(["eval", f"run={name}"], cage).refused()
    assert "\x1b" not in err


@pytest.mark.parametrize("target", ["/etc/passwd", "/dev/zero", "/proc/self/environ", "loop", ".", "missing"])
@pytest.mark.parametrize("name", ["config.yaml", "status.json"])
def test_links_in_a_run_lead_nowhere(cage, name, target):
    write(cage / "run/status.json", "{}")
    write(cage / "run/config.yaml", CONFIG)
    (cage / "run" / name).unlink()
    (cage / "run" / name).symlink_to(cage / "run" / name if target == "loop" else target)
    said = command(["eval", "run=run"], cage)
    said.check()
    assert "root:" not in said.err
    if name == "config.yaml":
        said.refused()


def test_sweep_files_of_others_are_passed_over(cage):
    for number, text in enumerate(
        ["[" * 99_999, "[]", "null", "{}", "\x00", json.dumps({"schema_version": 1, "command": 3, "complete": []})]
    ):
        write(cage / f"outputs/2020010{number}-000000-aaaa-sweep/sweep.json", text)
    said = command(["train", "-m", "seed=1,2", *BASE], cage)
    assert (len(said.runs), "Traceback" in said.err) == (2, False)
    assert {Path(run.output_dir).parent.name[:8] for run in said.runs}.isdisjoint(f"2020010{n}" for n in range(6))

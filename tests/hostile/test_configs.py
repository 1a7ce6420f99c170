"""Command lines and YAML files that want code run or secrets told: each is refused in a sentence, and no canary sings.

Whom llmft trusts stands in SECURITY.md: the command line, the user's own folders of YAML for values, packages named in
plugins.
"""

import pytest
from hostile_cli import BASE, bind_run, command, write

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

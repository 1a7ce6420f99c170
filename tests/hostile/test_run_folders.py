"""Run directories, which may have come from anybody, name no code, no secret and no place outside them; no canary sings."""

import json
from pathlib import Path

import pytest
from hostile_cli import BASE, bind_run, command, write

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

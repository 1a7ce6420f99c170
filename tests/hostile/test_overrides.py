"""Random settings, on the command line, in YAML files and in run directories: exit 0 or 2, a sentence, never a traceback.

Everything is drawn by Hypothesis from a fixed seed, which is part of the test's name.
"""

import json
import os
from pathlib import Path

import hypothesis
import pytest
import yaml
from hostile_cli import command
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from llmft.config import settings as schema_settings
from llmft.config.schema import EvalRun, PredictRun, TrainRun

KEYS = sorted({key for root in (TrainRun, EvalRun, PredictRun) for key in schema_settings.keys(root)})
GROUPS = [
    "task",
    "model",
    "adapter",
    "optimizer",
    "schedule",
    "training",
    "generation",
    "hardware",
    "experiment",
    "export",
    "gate",
]
CHOICES = [
    "gpt2",
    "lora",
    "none",
    "adamw",
    "cosine",
    "default",
    "greedy",
    "cpu",
    "demo",
    "summarization",
    "x",
    "x.yaml",
    "../x",
]
HYDRA = ["hydra.run.dir", "hydra/launcher", "hydra/sweeper", "hydra.sweeper.n_trials", "hydra.searchpath", "hydra.verbose",
         "hydra.job.env_set.X", "hydra.callbacks", "hydra", "hydra.launcher.n_jobs", "hydra.mode", "schema", "schema/train"]  # fmt: skip
ODD_TEXT = ["", " ", "=", "~", "@", ":", "a.b", ".", "..", "/", "//", "a..b", ".a", "a.", "{", "}", "[", "]", "'", '"', "\\", "$", "${",
            "\x00", "\x1b[31m", "\u202e", "\ud83d", "要約", "é", "\n", "\t", "a b", "-", "--", "#", "!", "&a", "*a", "|", ">", "%", "`",
            "<<", "_self_", "__class__", "self", "_target_", "_group_", "true", "???", "inf", "1" * 5000, "x" * 21000]  # fmt: skip
VALUES = ["1", "0", "-1", "1.5", "1e-4", "1e999", "-inf", "nan", ".nan", "null", "none", "None", "true", "yes", "off", "???", "[]", "{}",
          "[a,b]", "[[1],[2]]", "{a: 1}", "{a: {b: [1, {c: d}]}}", "{a:1,a:2}", "1,2", "a,b", "range(1,4)", "choice(1,2)", "glob(*)",
          "interval(0,1)", "tag(a,choice(1,2))", "sort(2,1)", "shuffle(1,2)", "int(x)", "str([1])", "json_str({a:1})", "cast(3)",
          "extend_list(a,b)", "'a'", '"a"', "'a", '"${seed}"', "[a", "{a", "a]", "(", "a=b", "a==b", "a:b", "a@b", "@", "~", "\\", "\\,",
          "${seed}", "${task.name}", "${oc.env:HOME}", "${oc.env:NOT_THERE}", "${oc.env:NOT_THERE,x}", "${oc.decode:'[1'}", "${oc.decode:3}",
          "${oc.create:{a:1}}", "${oc.select:x,1}", "${oc.select:task}", "${oc.dict.keys:task}", "${oc.deprecated:seed}", "${now:%Y}",
          "${hydra:job.name}", "${python_version:}", "${nothing:x}", "${optimizer.lr}", "${..seed}", "${.}", "${}", "${a", "${${seed}}",
          "{_target_: os.system}", "{a: ${seed}}", "0x1f", "0b1", "1_000", "12:30:00", "2020-01-01", "9" * 4400, "1" + "0" * 400,
          "[" * 60 + "]" * 60, "{a: " * 60 + "1" + "}" * 60, "a" * 20_001, "\x00", "\x1b]0;x\x07", "\ud83d", "要約 {x}", "a\nb", "%s", "{0}",
          "lora", "bfloat16", "cpu", "hf_" + "a1" * 12, "/etc/passwd", "../..", "~/x", "file:///x", "1 epoch", "never"]  # fmt: skip

texts = st.one_of(st.sampled_from(ODD_TEXT), st.text(max_size=12), st.text("abe_./=,:{}[]'\"$~+@\\ 1-", max_size=16))


def misspelt(key: str) -> st.SearchStrategy[str]:
    """Keys with a letter missing, doubled or in the wrong place."""
    places = st.integers(0, len(key) - 1)
    return places.flatmap(
        lambda at: st.sampled_from([key[:at] + key[at + 1 :], key[:at] + key[at] + key[at:], key[:at] + "." + key[at:]])
    )


keys = st.one_of(
    st.sampled_from(KEYS),
    st.sampled_from(KEYS),
    st.sampled_from(KEYS).flatmap(misspelt),
    st.sampled_from(GROUPS),
    st.sampled_from(HYDRA),
    st.tuples(st.sampled_from([*GROUPS, *KEYS]), st.sampled_from([".", "/", "@", ":"]), texts).map("".join),
    texts,
)
values = st.one_of(st.sampled_from(VALUES), st.sampled_from(CHOICES), texts, st.integers().map(str), st.floats().map(str))
prefixes = st.sampled_from(["", "", "", "", "", "", "+", "++", "~", "+++"])
overrides = st.one_of(
    st.tuples(prefixes, keys, st.just("="), values).map("".join),
    st.tuples(prefixes, keys, st.just("="), values).map("".join),
    st.tuples(
        st.sampled_from(["task.metrics.", "optimizer.options.", "gate.min.", "task.data.train=", "plugins="]), values
    ).map("".join),
    st.tuples(prefixes, keys).map("".join),
    texts,
)
flags = st.lists(
    st.sampled_from(["--cfg=job", "--cfg=all", "--cfg=hydra", "--resolve", "--info", "--info=defaults", "--config-name=x", "-cn", "--lr",
                     "--config-dir=conf", "--config-dir=nowhere", "--package=task", "-x", "--config-name=../x", "--config-name=/etc/x"]),
    max_size=1,
)  # fmt: skip
FITTING = {
    int: ["1", "2", "7"],
    float: ["0.5", "1", "1e-3"],
    bool: ["true", "false"],
    str: ["a", "a b", "{x}", "要約 {x}", "${task.name}", "a=b"],
}


def fitting(key: str) -> list[str]:
    """The key with values of its type, which rules may still refuse."""
    kind = schema_settings.without_null(schema_settings.find_type(TrainRun, key))
    found = FITTING.get(kind) or list(getattr(kind, "__members__", ())) or ["[a]", "{a: 1}"]
    return [f"{key}={value}" for value in found]


sane = st.sampled_from(
    [word for key in schema_settings.keys(TrainRun) for word in fitting(key)] + ["adapter=lora", "experiment=demo"]
)
command_lines = st.builds(
    lambda name, base, words, odd, flag: [name, *base, *words, *odd, *flag],
    st.sampled_from(["train", "train", "train", "train", "train", "eval", "predict"]),
    st.sampled_from([[], ["model.name=m", "task.data.train=a.jsonl"], ["model.name=m", "task.data.train=a.jsonl"]]),
    st.lists(sane, max_size=2),
    st.one_of(st.just([]), st.lists(overrides, min_size=1, max_size=1), st.lists(overrides, min_size=1, max_size=2)),
    flags,
)

# Values for YAML: what a setting may be, nested at random under names that mostly exist.
names = st.one_of(
    st.sampled_from([part for key in KEYS for part in key.split(".")]), st.sampled_from([*GROUPS, "defaults", "hydra"]), texts
)
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), values, st.dates(), st.binary(max_size=3))
trees = st.recursive(
    leaves, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=4)), max_leaves=8
)
sections = st.dictionaries(st.sampled_from(GROUPS), st.dictionaries(names, leaves, max_size=3), max_size=3)
BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{'abcdefghi'[n + 1]}: &{'abcdefghi'[n + 1]} [{','.join(['*' + 'abcdefghi'[n]] * 10)}]\n" for n in range(8)
)
SNIPPETS = ["seed: 1", "seed: 1\nseed: 2", "\tseed: 1", "seed:\t1", "{seed: 1", "- a\n- b", "just text", "---\nseed: 1\n---\nseed: 2", "%YAML 9.9\n---\n",
            "a: &a\n  b: *a", "&a [*a]", "a: *nothing", "<<: {seed: 3}", "<<: 3", "task: &t {name: x}\nmodel:\n  <<: *t", "!!python/object:os.system {}",
            "seed: !!python/object/apply:os.system ['true']", "seed: !!python/name:os.system", "x: !mine 3", "? [a, b]\n: c", "? {a: b}\n: c",
            "1: 2", "null: 1", "true: 1", "1.5: 2", "2020-01-01: 3", "seed: !!binary aGk=", "seed: !!set {1, 2}", "seed: !!timestamp 2020-01-01",
            "seed: !!int x", "seed: !!float nan", "seed: 0o17", "seed: 1:30", "task: {source: ${seed}}", "task:\n  source: ${nothing}", "seed: ${seed}",
            "task:\n  name: ${model.name}\nmodel:\n  name: ${task.name}", "defaults: 3", "defaults: {a: b}", "defaults: [nothing]", "defaults: [/task: nothing]",
            "defaults:\n  - override /task: summarization", "defaults:\n  - override /task: nothing", "defaults: [[a]]", "defaults: [null]", "defaults: [{a: b, c: d}]",
            "defaults:\n  - x", "defaults:\n  - /experiment/x", "defaults: [_self_, _self_]", "defaults:\n  - /experiment: [x, x]",
            "defaults:\n  - /task@model: translation", "defaults:\n  - optional /task: nothing", "defaults:\n  - /task: ${nothing}", "defaults:\n  - /task: ${oc.env:HOME}",
            "defaults:\n  - override hydra/launcher: nothing", "defaults:\n  - override hydra/job_logging: stdout", "hydra: 3", "hydra: []", "hydra:\n  searchpath: 3",
            "hydra:\n  searchpath: [pkg://os]", "hydra:\n  run: {dir: x}", "hydra:\n  launcher: {_target_: os.system}", BOMB, "[" * 400, "{a: " * 400, "- " * 400,
            "a:\n" + " a:\n" * 3, "'" * 99, '"\\x', "seed: \x00", "seed: \x85", "\ufeffseed: 1", "seed: '\u202e'", "# @package nothing.at.all\nseed: 1",
            "# @package _group_\nname: x", "# @package task\nname: y", "# @package hydra.run\ndir: x", "# @package\nseed: 1", "# @package a b\nseed: 1",
            "task:\n  labels: [" + "a, " * 1000 + "]", "task: null", "task: []", "model: gpt2", "task:\n  data: null", "task:\n  metrics: {rouge: 3}",
            "plugins: os", "plugins: [3]", "gate:\n  min: {rougeL: high}", "optimizer:\n  options: {betas: [a]}"]  # fmt: skip
heads = st.sampled_from(["# @package _global_\n", "# @package _global_\n", "", "# @package hydra\n", "#@package task\n"])
bodies = st.one_of(
    trees.map(lambda value: yaml.safe_dump(value, allow_unicode=True)),
    sections.map(lambda value: yaml.safe_dump(value, allow_unicode=True)),
    sections.map(lambda value: json.dumps(value, default=str)),
    st.sampled_from(SNIPPETS),
    st.lists(st.sampled_from(SNIPPETS), min_size=2, max_size=2).map("\n".join),
    st.text(max_size=60),
)
documents = st.tuples(heads, bodies).map("".join)


def draw_all(strategy, seed, count, body):
    """Call `body` with `count` values; the same ones every time."""
    chosen = settings(max_examples=count, deadline=None, database=None, phases=(Phase.generate, Phase.shrink),
                      suppress_health_check=list(HealthCheck), print_blob=False)  # fmt: skip
    hypothesis.seed(seed)(chosen(hypothesis.given(strategy)(body)))()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))


def try_command_lines(folder, seed, count):
    write(folder / "conf/x.yaml", "defaults: [schema/train, _self_]\nmodel: {name: m}\n")

    def body(words):
        said = command(words, folder)
        said.check()
        if "Traceback" in said.out:
            raise AssertionError(said.out)

    draw_all(command_lines, seed, count, body)


def try_files(folder, seed, count):
    places = {
        "conf/experiment/x.yaml": ["train", "--config-dir=conf", "experiment=x", "model.name=m"],
        "conf/task/x.yaml": ["eval", "--config-dir=conf", "task=x", "model.name=m"],
        "conf/x.yaml": ["train", "--config-dir=conf", "--config-name=x"],
        "conf/hydra/launcher/x.yaml": ["train", "--config-dir=conf", "hydra/launcher=x", "model.name=m"],
    }

    def body(drawn):
        place, text = drawn
        write(folder / place, text)
        try:
            said = command(places[place], folder)
        finally:
            os.unlink(folder / place)
        said.check()
        assert not said.runs or "launcher" not in place or said.code == 0

    draw_all(st.tuples(st.sampled_from(sorted(places)), documents), seed, count, body)


def try_runs(folder, seed, count):
    """Somebody else's run directory, in which config.yaml is anything."""
    write(folder / "run/status.json", json.dumps({"schema_version": 1}))

    def body(drawn):
        name, text = drawn
        write(folder / "run/config.yaml", text)
        said = command([name, "run=run"], folder)
        said.check()
        assert all(run.plugins == [] for run in said.runs)

    recorded = st.builds(
        lambda base, extra: yaml.safe_dump({"model": {"name": "m"}, **base, **(extra if isinstance(extra, dict) else {})}, allow_unicode=True),
        sections, trees)  # fmt: skip
    draw_all(st.tuples(st.sampled_from(["eval", "predict"]), st.one_of(documents, recorded)), seed, count, body)


QUICK = [(try_command_lines, 0, 30), (try_files, 0, 20), (try_runs, 0, 10)]
FULL = [(try_command_lines, seed, 350) for seed in range(1, 9)]
FULL += [(try_files, seed, 260) for seed in range(1, 7)]
FULL += [(try_runs, seed, 170) for seed in range(1, 5)]


def test_counts():
    assert sum(count for _, _, count in QUICK) == 60
    assert sum(count for _, _, count in FULL) >= 5000


@pytest.mark.parametrize(("attempt", "seed", "count"), QUICK, ids=lambda value: getattr(value, "__name__", str(value)))
def test_some(tmp_path, attempt, seed, count):
    attempt(tmp_path, seed, count)


@pytest.mark.torture
@pytest.mark.parametrize(("attempt", "seed", "count"), FULL, ids=lambda value: getattr(value, "__name__", str(value)))
def test_many(tmp_path, attempt, seed, count):
    attempt(tmp_path, seed, count)

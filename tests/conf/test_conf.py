"""Every built-in YAML composes, keeps the rules, and says what it is and which command uses it."""

import re
import shlex

import pytest
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir

from llmft.cli.arguments import parse, quote
from llmft.cli.help import describe
from llmft.config import compose, overrides, rules, sources

CONF = sources.built_in()
FILES = sorted(CONF.rglob("*.yaml"))
CHOICES = [path for path in FILES if path.parent != CONF and "hydra" not in path.parts]


def run_of(command, *words):
    """The checked configuration of a command line; eval and predict with a task and a model if they have none."""
    compose.register([])
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose.to_run(compose.plain(hydra_compose(command, overrides=list(words)), command), command)


def test_conf_is_seen():
    assert len(FILES) >= 90
    assert {path.parent.name for path in CHOICES} == {
        "task", "model", "adapter", "optimizer", "schedule", "training", "generation", "hardware", "experiment"
    }  # fmt: skip


@pytest.mark.parametrize("path", CHOICES, ids=lambda path: path.relative_to(CONF).as_posix())
def test_every_choice_composes(path):
    words = [f"{path.parent.name}={path.stem}"]
    if "scratch:" in path.read_text(encoding="utf-8"):
        words.append("adapter=none")  # random weights cannot stay as they are
    assert rules.check(run_of("train", *words)) == []


@pytest.mark.parametrize("command", ["eval", "predict"])
@pytest.mark.parametrize("group", ["task", "model", "generation", "hardware"])
def test_choices_compose_for_the_other_commands(command, group):
    for choice in sources.choices(group, [CONF]):
        words = {"task": "summarization", "model": "gpt2", group: choice}
        assert rules.check(run_of(command, *(f"{key}={value}" for key, value in words.items()))) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(CONF).as_posix())
def test_the_first_line_is_a_command_that_works(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    first = lines[1] if lines[0].startswith("# @package") else lines[0]
    _, program, command, *words = shlex.split(first, comments=False) if first.startswith("#") else ("", "", "")
    assert program == "llmft"
    root = compose.ROOTS[command]
    asked = parse(words, command)
    settings = [quote(word, root, asked.multirun) for word in asked.settings]
    assert overrides.check(settings, root, command, asked.multirun, [CONF]) == []
    if path in CHOICES:
        assert f"{path.parent.name}={path.stem}" in words


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(CONF).as_posix())
def test_the_second_line_says_what_it_is(path):
    if path.parent.name != "sweeper":
        assert re.fullmatch(r"[A-Za-z0-9].{10,110}\.", describe(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(CONF).as_posix())
def test_no_code_in_yaml(path):
    text = path.read_text(encoding="utf-8")
    assert yaml.safe_load(text)
    assert bool(re.search(r"(?<!\w)_target_(?!\w)", text)) == (path.relative_to(CONF).as_posix() == "hydra/sweeper/search.yaml")


def test_names_agree_with_file_names():
    for group in ("optimizer", "schedule", "adapter", "task"):
        for choice, path in sources.choices(group, [CONF]).items():
            assert yaml.safe_load(path.read_text(encoding="utf-8"))["name"] == choice

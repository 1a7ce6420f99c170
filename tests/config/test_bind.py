"""Names become functions, from trusted packages only, and options are held against signatures."""

import sys

import pytest

from llmft.config import names
from llmft.config.bind import bind, bind_all, check_options
from llmft.errors import ConfigError

TABLE = {"near": "llmft.config.bind.bind", "far": "llmft.config.bind.check_options"}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with functions of its own."""
    (tmp_path / "my_plugin").mkdir()
    (tmp_path / "my_plugin/__init__.py").write_text(
        "from functools import partial\nfrom os import system\nimport json\ndef score(a, b, c=1): ...\nNUMBER = 3\nhalf = partial(score, 1)\nworse = partial(system, 'true')\n",
        encoding="utf-8",
    )
    (tmp_path / "my_plugin/broken.py").write_text("import no_such_module\n", encoding="utf-8")
    (tmp_path / "my_plugin/typo.py").write_text("a b\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_plugin"
    for name in [name for name in sys.modules if name.startswith("my_plugin")]:
        del sys.modules[name]


def test_a_name_is_looked_up():
    assert bind("near", TABLE, [], "here") is bind


def test_a_dotted_name_is_imported(package):
    assert bind("my_plugin.score", {}, [package], "here").__name__ == "score"
    assert bind("my_plugin.half", {}, [package], "here").args == (1,)
    assert bind("llmft.config.bind.bind", TABLE, [], "here") is bind


@pytest.mark.parametrize(
    ("name", "plugins", "said"),
    [
        ("naer", [], "here=naer: no such name. Did you mean near? Built in: far, near; or a dotted name"),
        (
            "my_plugin.score",
            [],
            "here=my_plugin.score: my_plugin is not among the trusted packages. If you trust it: plugins=[my_plugin]",
        ),
        ("os.system", ["my_plugin"], "plugins=[os]"),
        ("my_plugin_2.score", ["my_plugin"], "plugins=[my_plugin_2]"),
        ("my_plugin.scores", ["my_plugin"], "my_plugin has no function scores. Did you mean score?"),
        ("my_plugin.NUMBER", ["my_plugin"], "has no function NUMBER"),
        ("my_plugin.broken.x", ["my_plugin"], "cannot import my_plugin.broken: No module named 'no_such_module'"),
        ("my_plugin.typo.x", ["my_plugin"], "cannot import my_plugin.typo: SyntaxError: invalid syntax (typo.py, line 1)"),
        ("my_plugin.system", ["my_plugin"], "my_plugin only imports system, it belongs to posix. Name it where it is defined"),
        ("my_plugin.worse", ["my_plugin"], "it belongs to posix"),
        ("my_plugin.json.loads", ["my_plugin"], "cannot import my_plugin.json"),
        ("my_plugin.__main__.x", ["my_plugin"], "not an import path"),
        ("llmft.runs.durable.write_text", [], "a part of llmft that settings do not name. Built in here: far, near."),
        ("llmft.runs.durable.write_text", ["llmft"], "a part of llmft that settings do not name"),
        ("my_plugin..x", ["my_plugin"], "not an import path"),
        ("my_plugin.x y", ["my_plugin"], "not an import path"),
        ("", [], "here=: no such name."),
    ],
)
def test_refused(package, name, plugins, said):
    with pytest.raises(ConfigError) as raised:
        bind(name, TABLE, plugins, "here")
    assert said in str(raised.value)


def test_an_untrusted_package_is_not_imported(package):
    with pytest.raises(ConfigError):
        bind("my_plugin.score", {}, [], "here")
    assert package not in sys.modules


def metric(predictions, references, lowercase=False, *, tokenize):
    """Takes two arguments from llmft and two options."""


def test_options_that_fit():
    check_options(metric, {"tokenize": "13a", "lowercase": True}, 2, "task.metrics.m")
    check_options(lambda a, b, **options: None, {"anything": 1}, 2, "m")
    check_options(lambda *all: None, {}, 3, "m")


def test_every_option_that_does_not_fit():
    with pytest.raises(ConfigError) as raised:
        check_options(metric, {"tokenise": "13a", "references": [], "x": 1}, 2, "task.metrics.m")
    assert raised.value.problems == (
        "task.metrics.m.tokenise: metric has no such option, it takes lowercase, tokenize. Did you mean tokenize?",
        "task.metrics.m.references: metric gets references from llmft. Leave it out.",
        "task.metrics.m.x: metric has no such option, it takes lowercase, tokenize.",
        "task.metrics.m.tokenize: metric needs it. Add task.metrics.m.tokenize=...",
    )


def test_a_function_of_too_few_arguments():
    with pytest.raises(ConfigError, match="takes 1 arguments, expected 2"):
        check_options(lambda a: None, {}, 2, "m")


def test_problems_come_together():
    def fail(text):
        raise ConfigError(text)

    assert bind_all(lambda: 1, lambda: 2) == [1, 2]
    with pytest.raises(ConfigError) as raised:
        bind_all(lambda: fail("a"), lambda: 1, lambda: fail("b"))
    assert raised.value.problems == ("a", "b")


@pytest.mark.parametrize("table", ["FORMULATIONS", "METRICS", "BASELINES", "OPTIMIZERS", "SCHEDULES", "DATASETS"])
def test_every_built_in_name_is_there(table):
    rows = getattr(names, table)
    assert rows
    for name in rows:
        assert callable(bind(name, rows, [], table))

"""Settings typed in a shell reach the configuration as they were meant."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from llmft.cli.arguments import parse, quote, split
from llmft.config.schema import TrainRun
from llmft.errors import ConfigError


def read(word: str, multirun: bool = False):
    """The value, or the list of values of a sweep, that Hydra makes of a word after quoting."""
    override = OverridesParser.create().parse_override(quote(word, TrainRun, multirun))
    if override.is_sweep_override():
        return [OverridesParser.create().parse_override(f"key={text}").value() for text in override.sweep_string_iterator()]
    return override.value()


@pytest.mark.parametrize(
    "text",
    [
        "{article}",
        "summarize: {article}",
        "{a: b}",
        "a=b",
        "a, b",
        "a,b",
        "要約してください:{本文}",
        "say \"yes\" or 'no'",
        "it's",
        "back\\slash\\",
        "true",
        "12e4567",
        "0012",
        "1_000",
        "[INST] {source} [/INST]",
        "choice(a,b)",
        "line one\nline two",
        " leading and trailing ",
        "C:\\data\\news.jsonl",
        "#1",
        "50%",
    ],
)
def test_text_stays_text(text):
    assert read(f"task.source={text}") == text
    assert read(f"model.revision={text}") == text


@given(st.text(min_size=1).filter(lambda text: text.lower() != "null" and text[0] not in "'\""))
def test_any_text_stays_text(text):
    assert read(f"task.prompt={text}") == text


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("task.system=null", None),
        ("task.system=", ""),
        ("task.system='quoted already'", "quoted already"),
        ('task.system="a, b"', "a, b"),
        ("task.system=${task.name}", "${task.name}"),
        ("optimizer.lr=1e-4", 1e-4),
        ("training.baseline=false", False),
        ("optimizer.options.betas=[0.9,0.95]", [0.9, 0.95]),
        ("task.metrics.rouge={use_stemmer: true}", {"use_stemmer": True}),
        ("task.data.train=新聞 data.jsonl", "新聞 data.jsonl"),
        ("task.data.train=a=b.jsonl", "a=b.jsonl"),
        ("task.data.train=[a b.jsonl,ü.jsonl]", ["a b.jsonl", "ü.jsonl"]),
        ("task.data.train=[]", []),
        ("task.data.train={source: a.en, target: a.de}", {"source": "a.en", "target": "a.de"}),
        ("task.data.test={a:new data/1e3,b: ü=(1).gz}", {"a": "new data/1e3", "b": "ü=(1).gz"}),
        ("task.data.train={a}.txt", "{a}.txt"),
        ("adapter.target_modules=[q_proj,v_proj]", ["q_proj", "v_proj"]),
        ("plugins=[my.package]", ["my.package"]),
        ("hardware.device=cpu", "cpu"),
    ],
)
def test_other_values_keep_their_meaning(word, value):
    assert read(word) == value


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("model.name=gpt2,t5-small", ["gpt2", "t5-small"]),
        ("model.name=gpt2, t5-small", ["gpt2", "t5-small"]),
        ("task.source={article},{text}", ["{article}", "{text}"]),
        ("model.revision=12e4567,1e3", ["12e4567", "1e3"]),
        ("model.name=choice(a,b)", ["a", "b"]),
        ("task.prompt='a, b','c'", ["a, b", "c"]),
        ("task.prompt=Summarize this, please: {source}", "Summarize this, please: {source}"),
        ("optimizer.lr=1e-4,2e-4", [1e-4, 2e-4]),
        ("task.data.train=a.jsonl,b c.jsonl", ["a.jsonl", "b c.jsonl"]),
        ("task.data.train=[a,b],[c]", [["a", "b"], ["c"]]),
        ("task.data.train={x: a},{x: b c}", [{"x": "a"}, {"x": "b c"}]),
        ("gate.min.rougeL=1,2", [1, 2]),
    ],
)
def test_sweeps_stay_sweeps(word, values):
    assert read(word, multirun=True) == values


def test_entries_need_no_plus():
    assert quote("gate.min.rougeL=30", TrainRun, False) == "++gate.min.rougeL=30"
    assert quote("+task.metrics.bleu.tokenize=13a", TrainRun, False) == "++task.metrics.bleu.tokenize=13a"
    assert quote("+experiment=demo", TrainRun, False) == "experiment=demo"
    assert quote("+mine=demo", TrainRun, False) == "+mine=demo"
    assert quote("+optimizer.lr=1", TrainRun, False) == "optimizer.lr=1"
    assert quote("~task.metrics.rouge", TrainRun, False) == "~task.metrics.rouge"


def test_split_cuts_outside_brackets_and_quotes():
    assert split("a, [b,c],'d,e'") == ["a", "[b,c]", "'d,e'"]
    assert split("don't, do") == ["don't, do"]
    assert split("a), (b") == ["a), (b"]


def test_flags_may_stand_anywhere():
    asked = parse(["optimizer.lr=1", "--cfg", "job", "seed=3", "--config-dir=x", "--resolve"], "train")
    assert asked.settings == ["optimizer.lr=1", "seed=3"]
    assert asked.flags() == ["--cfg=job", "--resolve"]
    assert asked.config_dir == "x"


def test_info_takes_no_setting_for_its_value():
    assert parse(["--info", "seed=3"], "train").info == "all"
    assert parse(["seed=3", "--info", "defaults-tree"], "train").info == "defaults-tree"
    assert parse(["-i"], "train").info == "all"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--learning-rate=3"], "learning_rate=3"),
        (["--output_dir", "x"], "output_dir=..."),
        (["--config-dir"], "expected one argument"),
        (["--resolve"], "--cfg job"),
        (["--cfg", "everything"], "invalid choice"),
        (["--multirun", "--cfg", "job"], "only one of them"),
        (["--experimental-rerun=x"], "no such flag"),
    ],
)
def test_wrong_flags(words, part):
    with pytest.raises(ConfigError, match=part):
        parse(words, "train")

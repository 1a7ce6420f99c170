"""Values to dataclasses, recorded values back, and what a run's settings give way to."""

import pytest
import yaml
from omegaconf import OmegaConf

from llmft.config import compose, dump
from llmft.config.schema import Adapter, AdapterKind, EvalRun, TrainRun
from llmft.errors import ConfigError


def values(command="train", **sections):
    plain = OmegaConf.to_container(OmegaConf.structured(compose.ROOTS[command]), enum_to_str=True)
    return OmegaConf.to_container(OmegaConf.merge(plain, {"model": {"name": "gpt2"}}, dump.escape(sections)), resolve=True)


def test_to_run_is_plain_dataclasses():
    run = compose.to_run(values(adapter={"name": "lora", "r": 8}, gate={"min": {"rougeL": 3}}), "train")
    assert isinstance(run, TrainRun)
    assert run.adapter == Adapter(name=AdapterKind.lora, r=8)
    assert (type(run.gate.min), run.gate.min) == (dict, {"rougeL": 3.0})


@pytest.mark.parametrize("text", ["${x}", r"\${x}", r"a\\${x} ${y}", "$5", "{source}", "\\"])
def test_resolved_text_is_not_resolved_again(text):
    run = compose.to_run(values(task={"prompt": text, "metrics": {"rouge": {"x": [text]}}}), "train")
    assert (run.task.prompt, run.task.metrics["rouge"]["x"]) == (text, [text])


def test_target_modules_stay_what_they_are():
    assert compose.to_run(values(), "train").adapter.target_modules == "all-linear"
    assert compose.to_run(values(adapter={"target_modules": ["a", "b"]}), "train").adapter.target_modules == ["a", "b"]


PARALLEL = {"source": "a.en", "target": "a.de"}


def test_parallel_files_stay_a_mapping():
    run = compose.to_run(values(task={"data": {"train": PARALLEL, "test": "t.jsonl"}}), "train")
    assert (run.task.data.train, run.task.data.validation, run.task.data.test) == (PARALLEL, None, ["t.jsonl"])
    assert type(run.task.data.train) is dict
    assert compose.to_run(yaml.safe_load(dump.config_yaml(run)), "train") == run


@pytest.mark.parametrize("files", [{}, {"source": ""}, {"source": 3}, {3: "a.en"}, {"source": ["a.en"]}])
def test_parallel_files_are_names(files):
    plain = values()
    plain["task"]["data"]["train"] = files
    with pytest.raises(ConfigError, match=r"^task\.data\.train: found .*, expected a name or a list .* parallel text files as"):
        compose.to_run(plain, "train")


def test_layers_have_no_parallel_files():
    plain = values()
    plain["adapter"]["target_modules"] = PARALLEL
    with pytest.raises(ConfigError, match=r"expected a name or a list of names such as \[a, b\]$"):
        compose.to_run(plain, "train")


def test_other_parallel_files_take_the_place_of_the_runs():
    data = {"train": {"en": "x.en", "de": "x.de"}}
    plain = OmegaConf.to_container(OmegaConf.structured(EvalRun), enum_to_str=True)
    plain["task"]["data"]["train"] = PARALLEL
    found = compose.from_run(plain, ["task.data.train"], RUN | {"task": {"name": "news", "data": data}}, "eval")
    assert found["task"]["data"]["train"] == PARALLEL


def test_all_that_is_wrong():
    plain = values()
    plain["optimizer"]["lr"], plain["task"]["data"]["train"], plain["foo"] = "abc", 3, 1
    with pytest.raises(ConfigError) as raised:
        compose.to_run(plain, "train")
    assert [text.split(":")[0] for text in raised.value.problems] == [
        "task.data.train",
        "optimizer.lr",
        "llmft train has no setting foo. All of them",
    ]


def test_recorded_values_come_back():
    run = compose.to_run(
        values(task={"prompt": "costs ${5}\n要約 {source}", "name": "off"}, seed=3, gate={"min": {"a": 1}}), "train"
    )
    plain = yaml.safe_load(dump.config_yaml(run))
    assert compose.to_run(plain, "train") == run
    again = OmegaConf.to_container(OmegaConf.create(dump.rerun_yaml(run)), resolve=True)
    assert {name: again[name] for name in again if name != "defaults"} == {
        name: plain[name] for name in plain if name not in dump.NOT_REPEATED
    }
    assert again["defaults"] == ["schema/train", "_self_"]


RUN = {
    "task": {"name": "news", "data": {"train": ["a.jsonl"]}, "metrics": {"rouge": {"use_stemmer": False}}},
    "model": {"name": "gpt2"},
    "generation": {"max_new_tokens": 33, "num_beams": 2},
    "hardware": {"device": "cpu"},
    "optimizer": {"lr": 1.0},
    "plugins": ["mine"],
    "gate": {"min": {"rougeL": 99.0}},
    "output_root": "elsewhere",
    "seed": 7,
}


def merged(named=(), **sections):
    plain = OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(EvalRun), sections), enum_to_str=True)
    return compose.from_run(plain, named, RUN, "eval")


def test_a_run_gives_its_values():
    found = merged()
    assert found["task"]["data"]["train"] == ["a.jsonl"]
    assert found["generation"]["num_beams"] == 2
    assert (found["seed"], found["hardware"]["device"], found["model"]["name"]) == (7, "cpu", "gpt2")
    assert (found["plugins"], found["gate"]["min"], found["output_root"]) == ([], {}, "outputs")
    assert "optimizer" not in found


def test_what_differs_from_the_schema_wins():
    found = merged(generation={"num_beams": 4}, task={"metrics": {"chrf": {}}})
    assert found["generation"]["num_beams"] == 4
    assert found["generation"]["max_new_tokens"] == 33
    assert found["task"]["metrics"] == {"rouge": {"use_stemmer": False}, "chrf": {}}


def test_what_is_named_wins_even_at_its_default():
    assert merged(["generation.num_beams"])["generation"] | {} == merged()["generation"] | {"num_beams": 1}
    assert merged(["generation"])["generation"]["max_new_tokens"] == 64
    assert merged(["seed"])["seed"] == 42


def test_another_task_does_not_mix_with_the_runs():
    found = merged(["task"], task={"name": "other", "metrics": {"chrf": {}}})
    assert (found["task"]["metrics"], found["task"]["data"]["train"]) == ({"chrf": {}}, None)


def test_the_run_itself_is_not_changed():
    before = yaml.safe_dump(RUN)
    merged(["task.metrics.rouge.use_stemmer"], task={"metrics": {"rouge": {"use_stemmer": True}}})
    assert yaml.safe_dump(RUN) == before

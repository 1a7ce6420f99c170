import ast
import re

import pytest
import yaml

from llmft.reports import card
from llmft.reports.results import Finding

VERSIONS = {"llmft": "0.1.0", "torch": "2.13.0", "hydra-core": "1.3.8"}


def render(sample, loader="AutoModelForCausalLM"):
    return card.render(sample.results, sample.config, VERSIONS, "256 rows", loader)


def code(text):
    return re.search(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE).group(1)


def imports(text):
    return [
        f"{node.module}.{name.name}"
        for node in ast.walk(ast.parse(code(text)))
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    ]


def test_the_head_is_yaml_that_the_hub_reads(sample):
    _, head, body = render(sample).split("---\n", 2)
    assert yaml.safe_load(head) == {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["llmft", "summarization", "lora"],
    }
    assert body.startswith("\n# HuggingFaceTB/SmolLM2-135M-Instruct tuned for summarization\n")


def test_no_folder_of_the_machine_and_no_row(sample):
    sample.config["model"]["name"] = "/home/someone/models/smollm2"
    text = render(sample)
    assert "/home" not in text
    assert "someone" not in text
    assert "base_model" not in text
    assert "# smollm2 tuned for summarization" in text
    assert "| Training data | news.jsonl: 256 rows |" in text
    for row in sample.predictions:
        assert row["source"] not in text
        assert row["prediction"] not in text


def test_the_built_in_set_is_named(sample):
    sample.config["task"]["data"] |= {"train": None, "builtin": "standard_library"}
    assert "| Training data | the built-in set standard_library: 256 rows |" in render(sample)


def test_scores_are_a_table_with_as_many_cells_in_every_line(sample):
    lines = [line for line in render(sample).splitlines() if line.startswith("|")]
    start = lines.index("| score | before | after | change | p | lead-1 |")
    assert lines[start + 3] == "| rougeL | 18.40 | 31.20 [29.95, 32.45] | +12.80 [11.60, 14.00] | <0.001 | 24.00 |"
    assert lines[start + 4] == "| loss | 3.310 | 1.600 |  |  |  |"
    assert {line.count("|") for line in lines[start : start + 5]} == {7}


def test_settings_and_versions(sample):
    text = render(sample)
    assert "| Optimizer | adamw, peak learning rate 0.0002, weight decay 0.0 |" in text
    assert "| Adapter | LoRA, r 16, alpha 32.0, dropout 0.0 |" in text
    assert "| Versions | llmft 0.1.0, torch 2.13.0 |" in text


@pytest.mark.parametrize(
    ("adapter", "merge", "loader", "expected"),
    [
        (
            "lora",
            False,
            "AutoModelForCausalLM",
            ["peft.PeftModel", "transformers.AutoTokenizer", "transformers.AutoModelForCausalLM"],
        ),
        ("lora", True, "AutoModelForCausalLM", ["transformers.AutoTokenizer", "transformers.AutoModelForCausalLM"]),
        ("none", False, "AutoModelForSeq2SeqLM", ["transformers.AutoTokenizer", "transformers.AutoModelForSeq2SeqLM"]),
        (
            "none",
            False,
            "AutoModelForQuestionAnswering",
            ["transformers.AutoTokenizer", "transformers.AutoModelForQuestionAnswering"],
        ),
        ("none", False, "AutoModelForMaskedLM", ["transformers.AutoTokenizer", "transformers.AutoModelForMaskedLM"]),
    ],
)
def test_the_code_to_load_it_fits_the_model_folder(sample, adapter, merge, loader, expected):
    sample.config["adapter"]["name"], sample.config["export"]["merge"] = adapter, merge
    assert imports(render(sample, loader)) == expected


def test_an_adapter_with_a_head_of_its_own_names_its_classes(sample):
    sample.config["task"]["labels"] = ["bad", "good"]
    text = code(render(sample, "AutoModelForSequenceClassification"))
    assert "num_labels=2, id2label={0: 'bad', 1: 'good'}" in text
    assert (
        yaml.safe_load(render(sample, "AutoModelForSequenceClassification").split("---\n")[1])["pipeline_tag"]
        == "text-classification"
    )


def test_the_prompt_in_the_code_is_the_one_trained_with(sample):
    sample.config["task"]["prompt"] = 'Say "it\'s"\n{source}'
    sample.config["task"]["system"] = "Be brief."
    strings = [node.value for node in ast.walk(ast.parse(code(render(sample)))) if isinstance(node, ast.Constant)]
    assert 'Say "it\'s"\n{source}' in strings
    assert "Be brief." in strings


def test_warnings_are_limits_and_good_news_is_not(sample):
    limits = render(sample).split("## Limitations")[1]
    assert "- 6 of 96 sources were \\<cut\\>." in limits
    assert "Better than" not in limits


def test_an_evaluated_model_without_training(sample):
    sample.results.train = sample.results.before = None
    sample.results.paired = sample.results.baselines = {}
    assert "| score | after |\n|---|---:|\n| rouge1 | 38.40 [36.90, 39.90] |\n" in render(sample)


def test_file(sample, tmp_path):
    card.write_card(tmp_path, sample.results, sample.config, VERSIONS, "256 rows", "AutoModelForCausalLM")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == render(sample)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("gpt2", "gpt2"),
        ("owner/model-1.5", "owner/model-1.5"),
        ("/a/b/c", "c"),
        ("../x/y", "y"),
        ("data/train.jsonl", "train.jsonl"),
        ("~/m", "m"),
    ],
)
def test_paths_are_shown_by_their_last_part(name, shown):
    assert card.without_folders(name) == shown


HOSTILE = "x`|y\n---\nbase_model: evil\n# <script>alert(1)</script> [a](javascript:alert(1)) ![b](http://e.org/t.png) ```\x1b[31m\u202e"


def test_names_are_text_and_neither_markup_nor_front_matter(sample):
    """Every text that settings, models or metrics bring, at its worst."""
    sample.results.task = sample.results.model = sample.config["model"]["name"] = sample.config["model"]["revision"] = HOSTILE
    sample.config["optimizer"]["name"] = sample.config["schedule"]["name"] = HOSTILE
    sample.config["task"] |= {"prompt": HOSTILE, "system": HOSTILE, "labels": [HOSTILE, "b"]}
    sample.config["task"]["data"]["train"] = [f"/home/someone/{HOSTILE}"]
    sample.results.metrics[HOSTILE] = card_metric = sample.results.metrics["rougeL"]
    sample.results.baselines[HOSTILE] = {HOSTILE: card_metric}
    sample.results.checks.append(Finding("warn", HOSTILE, "quoted from the data"))
    for loader in card.PIPELINES:
        text = render(sample, loader)
        _, head, body = text.split("---\n", 2)
        assert "base_model" not in yaml.safe_load(head)
        assert "\n---\n" not in body
        assert "someone" not in text
        assert "quoted from the data" not in text
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
        markdown = body.replace(f"```python\n{code(text)}```", "")
        assert not re.search(r"(?<!\\)(<(?!0\.001)|>)|\]\(", markdown)
        assert len(re.findall(r"^```", body, re.MULTILINE)) == 4
        assert len(re.findall(r"^# ", body, re.MULTILINE)) == 1 + len(re.findall(r"^# ", code(text), re.MULTILINE))
        ast.parse(code(text))
        tables = [line for line in markdown.splitlines() if line.startswith("| ")]
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables if line.startswith(("| rouge", "| x"))} == {8}

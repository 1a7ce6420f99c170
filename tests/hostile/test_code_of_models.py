"""Code that a model brings along: run by a typed flag and a pinned commit of the hub's alone."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import crash_lab
import pytest
import torch
from folder_harm import COMMIT, both, config, content, with_code, words
from folder_rows import TRAIN, rows_file

from llmft.config.schema import Model, Task
from llmft.errors import ModelError
from llmft.models.load import load_pretrained
from llmft.models.locate import locate
from llmft.tasks.open import choose_learner

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("alone")


def in_hub_cache(root: Path, tiny: Path, harm: Callable[[Path], None] = lambda folder: None) -> Path:
    """The tiny model as the hub's cache holds owner/model: a snapshot of links into blobs."""
    repository = root / "models--owner--model"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    plain = shutil.copytree(tiny, root / "plain")
    harm(plain)
    for number, path in enumerate(sorted(plain.iterdir())):
        path.rename(repository / "blobs" / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    return snapshot


@pytest.fixture
def hub(tmp_path, monkeypatch):
    root = tmp_path / "hub"
    root.mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(root))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(root))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return root


def test_the_hubs_cache_of_links_loads(tiny, hub):
    snapshot = in_hub_cache(hub, tiny / "gpt2")
    found = locate(Model(name="owner/model", revision=COMMIT))
    assert found.samefile(snapshot)
    assert load_pretrained(found, torch.float32, CPU).tokenizer is not None


def test_code_from_the_hub_is_not_run_unasked(tiny, hub, canary):
    in_hub_cache(hub, tiny / "gpt2", with_code(AutoConfig="evil.C", AutoModelForCausalLM="evil.M"))
    with pytest.raises(ModelError, match="which is not run"):
        choose_learner(locate(Model(name="owner/model", revision=COMMIT)), Task())


OWN = """
from transformers import GPT2Config, GPT2LMHeadModel
class OwnConfig(GPT2Config):
    model_type = "llmft_own"
class OwnModel(GPT2LMHeadModel):
    config_class = OwnConfig
"""


def test_code_from_the_hub_is_run_when_asked(tiny, hub, tmp_path, monkeypatch):
    """The counterpart: with the flag and the commit, the same folder works, by its own code."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    own = both(
        config(model_type="llmft_own", auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}),
        words(tokenizer_class="PreTrainedTokenizerFast"),
        content("own.py", OWN),
    )
    in_hub_cache(hub, tiny / "gpt2", own)
    found = locate(Model(name="owner/model", revision=COMMIT, trust_remote_code=True))
    choose_learner(found, Task(), code=True)
    loaded = load_pretrained(found, torch.float32, CPU, code=True)
    assert type(loaded.model).__name__ == "OwnModel"
    assert loaded.code


def test_code_of_a_folder_is_never_run(folder, canary):
    with_code(AutoConfig="evil.C")(folder)
    with pytest.raises(ModelError, match="nothing pins that of a folder"):
        locate(Model(name=str(folder), trust_remote_code=True, revision=COMMIT))


YAML = {
    "a file of the model group": ("model/mine.yaml", "name: {folder}\ntrust_remote_code: true\n", "model=mine"),
    "an experiment": (
        "experiment/mine.yaml",
        "# @package _global_\nmodel:\n  name: {folder}\n  trust_remote_code: true\n",
        "experiment=mine",
    ),
    "text for true": ("model/mine.yaml", "name: {folder}\ntrust_remote_code: 'yes'\n", "model=mine"),
    "a value to resolve": ("model/mine.yaml", "name: {folder}\ntrust_remote_code: ${{training.baseline}}\n", "model=mine"),
}


@pytest.mark.parametrize("name", YAML)
def test_no_file_may_trust_code(folder, canary, tmp_path, name):
    path, text, word = YAML[name]
    with_code(AutoConfig="evil.C")(folder)
    rows_file(tmp_path)
    (tmp_path / "conf" / path).parent.mkdir(parents=True)
    (tmp_path / "conf" / path).write_text(text.format(folder=folder))
    words = [*TRAIN, "--config-dir", "conf", word, f"model.revision={COMMIT}"]
    code, said = crash_lab.run(words, tmp_path, {"CANARY": str(canary)})
    assert code == 2, said
    assert re.search(rf"{path}:\d+: .*model.trust_remote_code", said.replace("\n", " ")), said

"""Model folders that mean harm: each is refused in a sentence before anything of it runs, or accepted with a stated value.

The canary is a file that the code in a folder would write. Nothing connects to anywhere: a socket that tries fails the test.
"""

import re
import shutil
from pathlib import Path

import pytest
import torch
from folder_cases import ACCEPTED, REFUSED

from llmft.config.schema import Model, Task
from llmft.errors import DoesNotFit, ModelError
from llmft.models.load import load_pretrained
from llmft.models.locate import content_hash, locate
from llmft.tasks.open import choose_learner

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("alone")


def load(folder: Path):
    """What train does with a model, up to the first row."""
    found = locate(Model(name=str(folder)))
    choose_learner(found, Task())
    return load_pretrained(found, torch.float32, CPU)


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_folder_is_refused_in_a_sentence(folder, canary, name, capfd):
    harm, said = REFUSED[name]
    harm(folder)
    with pytest.raises((ModelError, DoesNotFit)) as error:
        load(folder)
    message = str(error.value)
    assert error.value.exit_code in (4, 6)
    assert re.search(said, message), message
    assert str(folder) in message
    assert len(message) < 1500
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_a_folder_says_besides_plays_no_part(tiny, folder, canary, name):
    before = load_pretrained(tiny / "gpt2", torch.float32, CPU)
    ACCEPTED[name](folder)
    found = load(folder)
    assert type(found.model).__module__ == "transformers.models.gpt2.modeling_gpt2"
    assert found.code is False
    weights = dict(before.model.named_parameters())
    assert all(torch.equal(weight, weights[key]) for key, weight in found.model.named_parameters())
    assert found.tokenizer("The quick fox").input_ids == before.tokenizer("The quick fox").input_ids
    assert found.model.config.pad_token_id is None


def test_a_folder_through_a_link_and_weights_elsewhere_are_fine(tiny, tmp_path):
    folder = shutil.copytree(tiny / "gpt2", tmp_path / "model")
    (tmp_path / "disk").mkdir()
    (folder / "model.safetensors").rename(tmp_path / "disk" / "model.safetensors")
    (folder / "model.safetensors").symlink_to(tmp_path / "disk" / "model.safetensors")
    (tmp_path / "link").symlink_to(folder)
    assert load(tmp_path / "link").folder == tmp_path / "link"


def test_changed_files_are_refused(folder):
    model = Model(name=str(folder), sha256=content_hash(folder))
    assert locate(model) == folder
    for number, name in enumerate(("config.json", "generation_config.json", "tokenizer_config.json", "model.safetensors")):
        other = shutil.copytree(folder, folder.with_name(f"{number}"))
        with (other / name).open("ab") as file:
            file.write(b" ")
        with pytest.raises(ModelError) as error:
            locate(Model(name=str(other), sha256=model.sha256))
        assert f"model.sha256={model.sha256} was asked for" in str(error.value)
        assert content_hash(other) in str(error.value)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(ModelError, match="its files have changed"):
        locate(model)

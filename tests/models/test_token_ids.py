"""Token ids that configurations name: held against the embedding, and what an end is."""

import shutil

import pytest
import torch
from transformers import GenerationConfig

from llmft.config.schema import Generation
from llmft.errors import ModelError
from llmft.models.generate import generation_config
from llmft.models.load import Head, load_config, load_pretrained
from llmft.models.token_ids import check_ids, end_ids

CPU = torch.device("cpu")


def test_a_text_ends_at_the_models_own_ends_too(tiny):
    """Llama 3's generation_config.json has three: <|end_of_text|>, <|eom_id|>, <|eot_id|>; its tokenizer the last."""
    pretrained = load_pretrained(tiny / "llama", torch.float32, CPU)
    pretrained.model.generation_config.eos_token_id = [0, 1, 2]
    assert generation_config(Generation(), pretrained, [2], 2).eos_token_id == [2, 0, 1]
    pretrained.model.generation_config.eos_token_id = 5
    assert generation_config(Generation(), pretrained, [2], 2).eos_token_id == [2, 5]
    pretrained.model.generation_config.eos_token_id = None
    assert generation_config(Generation(), pretrained, [2], 2).eos_token_id == [2]


@pytest.mark.parametrize(("given", "expected"), [(None, []), (3, [3]), ([3, 4], [3, 4])])
def test_ends(given, expected):
    assert end_ids(GenerationConfig(eos_token_id=given)) == expected


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "t5", "bart", "marian", "mbart", "m2m100"])
@pytest.mark.parametrize(
    "field", ["eos_token_id", "forced_bos_token_id", "decoder_start_token_id", "bad_words_ids", "suppress_tokens"]
)
def test_each_family_is_held_to_its_embedding(tiny, name, field):
    found = load_pretrained(tiny / name, torch.float32, CPU)
    rows = found.model.get_input_embeddings().weight.shape[0]
    for good, bad in ((rows - 1, rows), (0, -1)):
        setattr(found.model.generation_config, field, [[good]] if field == "bad_words_ids" else good)
        check_ids(found.tokenizer, found.model, found.folder)
        setattr(found.model.generation_config, field, [[good], [bad]] if field == "bad_words_ids" else [good, bad])
        with pytest.raises(ModelError) as error:
            check_ids(found.tokenizer, found.model, found.folder)
        assert str(error.value) == (
            f"{tiny / name}/generation_config.json: {field} names the token {bad}, the embedding has {rows} rows. "
            "Correct it, or take it out."
        )


def test_a_negative_pad_is_none(tiny, tmp_path):
    folder = shutil.copytree(tiny / "bert", tmp_path / "bert")
    text = (folder / "config.json").read_text()
    assert '"pad_token_id": 0' in text
    (folder / "config.json").write_text(text.replace('"pad_token_id": 0', '"pad_token_id": -1'))
    assert load_config(folder).pad_token_id is None
    assert load_pretrained(folder, torch.float32, CPU, Head.masked).model.get_input_embeddings().padding_idx is None

"""A Transformer from scratch: sizes of the paper, its tokenizer lossless, made once."""

import math

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from llmft.errors import ConfigError, DataError
from llmft.models import scratch
from llmft.models.family import Family
from llmft.models.load import load_pretrained, load_tokenizer
from llmft.models.scratch import check_sizes, make_scratch, train_tokenizer

TEXTS = ["Guten Morgen, wie geht es Ihnen?", "Good morning, how are you?", "你好。", "eins zwei drei"] * 5
SIZES = {"d_model": 32, "layers": 2, "heads": 4, "ffn": 64, "vocab_size": 300}
CPU = torch.device("cpu")


def make(sizes=SIZES, seed=0, key="k", texts=TEXTS, name="tiny"):
    return make_scratch(name, sizes, lambda: texts, seed, key)


def conf(request, name):
    return yaml.safe_load((request.config.rootpath / "conf" / "model" / f"{name}.yaml").read_text())["scratch"]


def test_is_the_base_model_of_the_paper(request):
    """Vaswani et al. 2017, table 3: base has 65 million parameters, with a shared vocabulary of about 37,000."""
    sizes = check_sizes(conf(request, "transformer_base"))
    assert (sizes.d_model, sizes.layers, sizes.heads, sizes.ffn, sizes.dropout) == (512, 6, 8, 2048, 0.1)

    class Vocabulary(list):
        pad_token_id, eos_token_id = 0, 1

    with torch.device("meta"):
        model = scratch.MarianMTModel(scratch.transformer_config(sizes, Vocabulary(range(37000))))
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    attention, norm = 4 * (512 * 512 + 512), 2 * 512
    feed_forward = 2 * 512 * 2048 + 2048 + 512
    by_hand = 37000 * 512 + 6 * (attention + feed_forward + 2 * norm) + 6 * (2 * attention + feed_forward + 3 * norm)
    assert trained == by_hand
    assert round(trained / 1e6) in (63, 64, 65)


def test_weights_are_drawn_as_the_paper_s_code_draws_them():
    model = load_pretrained(make(SIZES | {"d_model": 128, "ffn": 512}), torch.float32, CPU).model
    layer = model.model.encoder.layers[0]
    for weight in (layer.fc1.weight, layer.self_attn.q_proj.weight, model.model.decoder.layers[1].encoder_attn.v_proj.weight):
        bound = math.sqrt(6 / sum(weight.shape))  # Glorot & Bengio 2010, uniform
        assert bound * 0.95 < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert abs(weight.mean()) < bound * 0.05
    assert (layer.fc1.bias == 0).all()
    embedding = model.model.shared.weight
    assert (embedding[0] == 0).all()  # <pad>
    assert embedding[1:].std().item() == pytest.approx(128**-0.5, rel=0.05)
    assert model.lm_head.weight is embedding
    assert model.model.encoder.embed_tokens.weight is embedding
    assert model.model.encoder.embed_scale == math.sqrt(128)


def test_positions_are_the_sinusoids_of_the_paper():
    """PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i+1) = cos of the same; here all sines first, then all cosines."""
    model = load_pretrained(make(), torch.float32, CPU).model
    table = model.model.decoder.embed_positions.weight
    for position in (0, 1, 7, 300):
        for i in (0, 5, 15):
            angle = position / 10000 ** (2 * i / 32)
            assert table[position, i].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[position, 16 + i].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_the_folder_is_a_model_like_others():
    folder = make()
    found = load_pretrained(folder, torch.float32, CPU)
    assert (found.family, found.context, found.new) == (Family.encoder_decoder, 512, ())
    assert found.model.config.decoder_start_token_id == found.tokenizer.pad_token_id == 0
    assert found.tokenizer("Guten").input_ids[-1] == found.tokenizer.eos_token_id == found.model.config.eos_token_id
    assert len(found.tokenizer) == found.model.config.vocab_size <= 300
    assert found.model.generation_config.bad_words_ids == [[0]]


def test_is_made_once(monkeypatch):
    folder = make(key="once")
    monkeypatch.setattr(scratch, "train_tokenizer", lambda *_: pytest.fail("made again"))
    assert make(key="once") == folder
    (folder / "config.json").write_text("{}")
    monkeypatch.undo()
    assert make(key="once") == folder  # damaged: made anew
    assert load_pretrained(folder, torch.float32, CPU).model.config.d_model == 32


def test_depends_on_all_that_it_is_made_of():
    folders = [make(), make(seed=1), make(key="other"), make(SIZES | {"layers": 1}), make(name="a/b")]
    assert len(set(folders)) == 5
    one, two = (load_pretrained(folder, torch.float32, CPU).model for folder in folders[:2])
    assert not torch.equal(one.model.shared.weight, two.model.shared.weight)
    assert folders[4].name.startswith("a-b-")


def test_the_run_s_own_draws_go_on():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    make(key="draws")
    assert torch.equal(torch.get_rng_state(), state)


TOKENIZER = train_tokenizer(TEXTS, 300)


@settings(deadline=None, max_examples=200)
@given(st.text() | st.sampled_from(["</s>", "a <pad> b</s> c", "  two\t\n\r\n", " lead", "é👍🏽中", "don 't ."]))
def test_every_text_comes_back(text):
    ids = TOKENIZER(text).input_ids
    assert ids[-1] == TOKENIZER.eos_token_id
    assert not set(ids[:-1]) & set(TOKENIZER.all_special_ids)  # a text that holds "</s>" does not end there
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == text


def test_the_tokenizer_comes_back_the_same(tmp_path):
    TOKENIZER.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    for text in ("Guten Morgen", "a </s> b", "", "  x "):
        assert again(text).input_ids == TOKENIZER(text).input_ids
        assert again.decode(again(text).input_ids, skip_special_tokens=True) == text
    assert again.unk_token is None


def problems(sizes):
    with pytest.raises(ConfigError) as error:
        make_scratch("x", sizes, lambda: pytest.fail("no text is read"), 0, "k")
    return error.value.problems


def test_mistakes_cost_no_time():
    assert problems({"d_model": 32, "layer": 2, "heads": 4, "ffn": 8}) == (
        "model.scratch.layer: Transformer has no such option, it takes d_model, layers, heads, ffn, dropout, vocab_size, "
        "max_positions. Did you mean layers?",
        "model.scratch.layers: Transformer needs it. Add model.scratch.layers=...",
    )
    assert problems(SIZES | {"heads": 0, "dropout": 1, "ffn": 2.5, "layers": True}) == (
        "model.scratch.layers=True: expected a whole number above 0.",
        "model.scratch.heads=0: expected a whole number above 0.",
        "model.scratch.ffn=2.5: expected a whole number above 0.",
        "model.scratch.dropout=1: expected a share from 0 to below 1.",
    )
    assert problems(SIZES | {"heads": 5, "vocab_size": 100}) == (
        "model.scratch.d_model=32: expected an even multiple of heads=5; each head gets an equal share.",
        "model.scratch.vocab_size=100: expected 258 or more: all bytes, <pad> and </s>.",
    )


def test_no_text():
    with pytest.raises(DataError, match="the training rows hold no text"):
        make(texts=["", ""], key="none")

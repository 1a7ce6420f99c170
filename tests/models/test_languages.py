"""Languages of multilingual models, by transformers' own tokenizers."""

import pytest
import torch
from transformers import AutoTokenizer

from llmft.errors import ConfigError, ModelError
from llmft.models.languages import language_codes, matching, set_languages
from llmft.models.load import load_pretrained, load_tokenizer

CPU = torch.device("cpu")


def told(tiny, name, source, target):
    pretrained = load_pretrained(tiny / name, torch.float32, CPU)
    return pretrained, set_languages(pretrained.tokenizer, pretrained.model, source, target)


def tokens(tokenizer, ids):
    return tokenizer.convert_ids_to_tokens(ids)


@pytest.mark.parametrize(("source", "target"), [("en", "de"), ("en_XX", "de_DE"), ("eng_Latn", "deu_Latn"), ("__en__", "deu")])
def test_mbart50(tiny, source, target):
    """Source: language, text, end. Target the same, the language forced after the start token (Tang et al. 2020)."""
    pretrained, forced = told(tiny, "mbart", source, target)
    tokenizer = pretrained.tokenizer
    assert type(tokenizer).__name__ == "MBart50Tokenizer"
    assert tokenizer.convert_ids_to_tokens(forced) == "de_DE"
    assert tokens(tokenizer, tokenizer("a fox").input_ids)[0] == "en_XX"
    answer = tokens(tokenizer, tokenizer(text_target="a fox").input_ids)
    assert (answer[0], answer[-1]) == ("de_DE", "</s>")
    assert pretrained.model.generation_config.forced_bos_token_id == forced
    assert pretrained.model.config.decoder_start_token_id == 2


def test_mbart25(tiny):
    """Source: text, end, language; the target starts from its language (Liu et al. 2020): nothing is forced."""
    pretrained, forced = told(tiny, "mbart25", "en", "de")
    tokenizer = pretrained.tokenizer
    assert (type(tokenizer).__name__, forced) == ("MBartTokenizer", None)
    assert tokens(tokenizer, tokenizer("a fox").input_ids)[-2:] == ["</s>", "en_XX"]
    start = pretrained.model.config.decoder_start_token_id
    assert tokenizer.convert_ids_to_tokens(start) == "de_DE"
    assert pretrained.model.generation_config.decoder_start_token_id == start


@pytest.mark.parametrize(("source", "target"), [("en", "de"), ("en_XX", "de_DE"), ("eng_Latn", "deu_Latn")])
def test_nllb(tiny, source, target):
    pretrained, forced = told(tiny, "m2m100", source, target)
    tokenizer = pretrained.tokenizer
    assert type(tokenizer).__name__ == "NllbTokenizer"
    assert tokenizer.convert_ids_to_tokens(forced) == "deu_Latn"
    assert tokens(tokenizer, tokenizer("a fox").input_ids)[0] == "eng_Latn"
    assert tokens(tokenizer, tokenizer(text_target="a fox").input_ids)[0] == "deu_Latn"


class LikeM2M100:
    """The attributes of M2M100Tokenizer, which itself needs sentencepiece."""

    lang_code_to_id = {"en": 11, "de": 12, "zh": 13}
    src_lang, tgt_lang = "en", None


@pytest.mark.parametrize("target", ["de", "__de__", "de_DE", "deu_Latn"])
def test_m2m100(tiny, target):
    tokenizer, model = LikeM2M100(), load_pretrained(tiny / "m2m100", torch.float32, CPU).model
    assert set_languages(tokenizer, model, "zh_CN", target) == 12
    assert (tokenizer.src_lang, tokenizer.tgt_lang) == ("zh", "de")


@pytest.mark.parametrize("name", ["t5", "bart", "marian"])
def test_models_that_take_no_language(tiny, name):
    pretrained = load_pretrained(tiny / name, torch.float32, CPU)
    before = pretrained.tokenizer("a fox").input_ids
    assert set_languages(pretrained.tokenizer, pretrained.model, "xx", None) is None
    assert pretrained.tokenizer("a fox").input_ids == before


def refused(tiny, name, source, target):
    with pytest.raises(ConfigError) as error:
        told(tiny, name, source, target)
    return error.value.problems


def test_mistakes(tiny):
    assert refused(tiny, "mbart", "en", "de_AT") == (
        "task.target_language=de_AT: the model has no such language. Did you mean de_DE? It has af_ZA, ar_AR, az_AZ, bn_IN, "
        "cs_CZ, de_DE, en_XX, es_XX and 44 more.",
    )
    assert refused(tiny, "m2m100", "en", "zh") == (
        "task.target_language=zh: the model has several of that name: zho_Hans, zho_Hant. Name one of them.",
    )
    both = refused(tiny, "mbart", None, None)
    assert both[0] == (
        "task.source_language=null: this model has to be told the languages. Name one of af_ZA, ar_AR, az_AZ, bn_IN, cs_CZ, "
        "de_DE, en_XX, es_XX and 44 more."
    )
    assert both[1].startswith("task.target_language=null: this model has to be told")


def test_every_language_of_one_model_is_found_in_another(tiny):
    """mBART-50's codes by their letters among NLLB's, except where NLLB writes a language in two scripts."""
    nllb = language_codes(AutoTokenizer.from_pretrained(tiny / "m2m100"))
    mbart = language_codes(AutoTokenizer.from_pretrained(tiny / "mbart"))
    assert (len(nllb), len(mbart)) == (202, 52)
    found = {code: matching(code.split("_")[0], nllb) for code in mbart}
    assert {code for code, names in found.items() if len(names) != 1} == {"zh_CN"}
    assert (found["fa_IR"], found["lv_LV"], found["mn_MN"]) == (["pes_Arab"], ["lvs_Latn"], ["khk_Cyrl"])


@pytest.mark.parametrize("given", ["zho_Hant", "ZHO_hant", "zho-Hant"])
def test_spelling(tiny, given):
    assert matching(given, language_codes(AutoTokenizer.from_pretrained(tiny / "m2m100"))) == ["zho_Hant"]


def test_a_country_that_the_model_leaves_open(tiny):
    codes = language_codes(AutoTokenizer.from_pretrained(tiny / "mbart"))
    assert (matching("pt_BR", codes), matching("en-US", codes), matching("zh_TW", codes)) == (["pt_XX"], ["en_XX"], [])


@pytest.mark.parametrize(
    ("kind", "files"), [("MarianTokenizer", ["source.spm", "target.spm"]), ("MBart50Tokenizer", ["sp.model"])]
)
def test_a_tokenizer_that_needs_sentencepiece(tiny, tmp_path, monkeypatch, kind, files):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "config.json").write_text((tiny / "marian" / "config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(f'{{"tokenizer_class": "{kind}"}}')
    for file in ["vocab.json", *files, *(["sentencepiece.bpe.model"] if kind == "MBart50Tokenizer" else [])]:
        (tmp_path / file).write_text('{"<unk>": 0}')
    with pytest.raises(
        ModelError, match=r"the tokenizer \(.*\) is read by the package sentencepiece: pip install 'llmft\[marian\]'"
    ):
        load_tokenizer(tmp_path)

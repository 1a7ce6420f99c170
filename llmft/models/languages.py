"""Source and target language of models that are told them: mBART, mBART-50, M2M100 and NLLB."""

import re
from typing import Any

from transformers import MBartTokenizer, PreTrainedModel

from llmft.config.explain import suggest
from llmft.errors import ConfigError

# ISO 639-1 -> the three letters that NLLB writes (ISO 639-3), for the languages that mBART, M2M100 and NLLB have in common.
# Where ISO knows a group of languages, the one that NLLB was trained on: Standard Arabic for ar, Bokmal for no.
ISO_PAIRS = """
af-afr am-amh ar-arb as-asm az-azj ba-bak be-bel bg-bul bn-ben bo-bod bs-bos ca-cat cs-ces cy-cym da-dan de-deu el-ell
en-eng eo-epo es-spa et-est eu-eus fa-pes ff-fuv fi-fin fr-fra ga-gle gd-gla gl-glg gn-grn gu-guj ha-hau he-heb hi-hin
hr-hrv ht-hat hu-hun hy-hye id-ind ig-ibo is-isl it-ita ja-jpn jv-jav ka-kat kk-kaz km-khm kn-kan ko-kor ky-kir lb-ltz
lg-lug ln-lin lo-lao lt-lit lv-lvs mg-plt mi-mri mk-mkd ml-mal mn-khk mr-mar ms-zsm mt-mlt my-mya nb-nob ne-npi nl-nld
nn-nno no-nob ns-nso ny-nya oc-oci om-gaz or-ory pa-pan pl-pol ps-pbt pt-por ro-ron rn-run ru-rus rw-kin sa-san sd-snd
si-sin sk-slk sl-slv sm-smo sn-sna so-som sq-als sr-srp ss-ssw st-sot su-sun sv-swe sw-swh ta-tam te-tel tg-tgk th-tha
ti-tir tk-tuk tl-tgl tn-tsn tr-tur ts-tso tt-tat ug-uig uk-ukr ur-urd uz-uzn vi-vie wo-wol xh-xho yi-ydd yo-yor zh-zho
zu-zul
"""
THREE_LETTERS = dict(pair.split("-") for pair in ISO_PAIRS.split())
NLLB_CODE = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")


def set_languages(tokenizer: Any, model: PreTrainedModel, source: str | None, target: str | None) -> int | None:
    """Tell a multilingual tokenizer its languages; return the id of the token that generation has to begin with.

    A language is given as the model writes it (de_DE, deu_Latn, __de__) or by its letters (de, deu). mBART of 25 languages
    starts its target from the language instead, so its configuration is changed and None returned, as for models that take
    no language: theirs are ignored, since T5 is told by its prefix, and BART and Marian know one pair.

    Raises ConfigError where the model has no such language or several, or where it wants one and is told none.
    """
    codes = language_codes(tokenizer)
    if not codes:
        return None
    problems, found = [], {}
    for key, given in (("source_language", source), ("target_language", target)):
        chosen = [] if given is None else matching(given, codes)
        if len(chosen) == 1:
            found[key] = chosen[0]
        else:
            problems.append(f"task.{key}={'null' if given is None else given}: {what_is_wrong(given, chosen, codes)}")
    if problems:
        raise ConfigError(*problems)
    tokenizer.src_lang, tokenizer.tgt_lang = found["source_language"], found["target_language"]
    language_id = codes[found["target_language"]]
    if isinstance(tokenizer, MBartTokenizer):
        model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = language_id
        return None
    model.generation_config.forced_bos_token_id = language_id
    return language_id


def language_codes(tokenizer: Any) -> dict[str, int]:
    """Return the model's own names of its languages with their token ids, empty for a model that is not told any."""
    if hasattr(tokenizer, "lang_code_to_id"):  # mBART, mBART-50, M2M100
        return dict(tokenizer.lang_code_to_id)
    if not hasattr(tokenizer, "set_src_lang_special_tokens"):
        return {}
    names = [token for token in tokenizer.all_special_tokens if NLLB_CODE.fullmatch(token)]
    return {name: tokenizer.convert_tokens_to_ids(name) for name in names}


def matching(given: str, codes: dict[str, int]) -> list[str]:
    """Return the codes that a name stands for. A script or country that is given has to be the code's, unless it has none."""
    plain = given.strip().strip("_").replace("-", "_").lower()
    if exact := [code for code in codes if code.lower() == plain]:
        return exact
    letters, _, place = plain.partition("_")
    found = []
    for code in codes:
        own_letters, _, own_place = code.lower().partition("_")
        # de_DE may be asked of deu_Latn: a country says nothing about a script
        conflict = place and own_place not in ("", "xx", place) and len(own_place) == len(place)
        if not conflict and THREE_LETTERS.get(letters, letters) == THREE_LETTERS.get(own_letters, own_letters):
            found.append(code)
    return found


def what_is_wrong(given: str | None, chosen: list[str], codes: dict[str, int]) -> str:
    """Return what the user is told about a language that is none or several of the model's."""
    if given is None:
        return f"this model has to be told the languages. Name one of {listed(codes)}."
    if chosen:
        return f"the model has several of that name: {', '.join(chosen)}. Name one of them."
    letters = given.strip("_").lower()[:2]
    near = suggest(given, codes) or suggest(letters, codes)
    return f"the model has no such language.{near} It has {listed(codes)}."


def listed(codes: dict[str, int]) -> str:
    """Return a few of the names."""
    names = sorted(codes)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")

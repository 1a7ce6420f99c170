"""Names of languages: what models and data call them, and what scores need to know about them."""

TWO_LETTERS = {
    **{"ara": "ar", "arb": "ar", "ben": "bn", "ces": "cs", "cze": "cs", "deu": "de", "ger": "de", "ell": "el", "gre": "el"},
    **{"eng": "en", "spa": "es", "est": "et", "fas": "fa", "pes": "fa", "per": "fa", "fin": "fi", "fra": "fr", "fre": "fr"},
    **{"heb": "he", "hin": "hi", "hun": "hu", "ind": "id", "ita": "it", "jpn": "ja", "khm": "km", "kor": "ko", "lao": "lo"},
    **{"mya": "my", "bur": "my", "nld": "nl", "dut": "nl", "pol": "pl", "por": "pt", "ron": "ro", "rum": "ro", "rus": "ru"},
    **{"swe": "sv", "tha": "th", "tur": "tr", "ukr": "uk", "vie": "vi", "urd": "ur"},
    **dict.fromkeys(("zho", "chi", "cmn", "yue", "wuu", "lzh"), "zh"),
    **dict.fromkeys(("jp",), "ja"),
}
"""ISO 639-3 and 639-2 codes of widely used languages. All that Chinese is written for is zh: scores go by the script."""

WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "km", "my"})
"""Languages written without spaces between words, where text split at white space leaves whole sentences."""


def language_code(name: str | None) -> str | None:
    """The two-letter code for "de", "de_DE", "zh-TW", "deu_Latn", "zho_Hans" or "__de__"; other names in lower case, as they are.

    Codes: BCP 47, mBART-50 (de_DE), NLLB (deu_Latn, FLORES-200) and M2M100 (__de__).
    """
    if name is None:
        return None
    first = name.strip().strip("_").replace("-", "_").split("_")[0].lower()
    return TWO_LETTERS.get(first, first) or None

"""Words of any script, for counting and comparing them."""

import unicodedata

import regex

# Scripts without spaces between words: each character stands for itself, with the marks on it (Thai vowels and tones).
WITHOUT_SPACES = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
# Marks belong to the word: without them Hindi falls apart at each vowel sign. Joiners do too, inside Persian words.
WORD = regex.compile(
    rf"[[{WITHOUT_SPACES}]&&[\p{{L}}\p{{N}}]]\p{{M}}*|[[\p{{L}}\p{{N}}\p{{M}}\u200c\u200d]--[{WITHOUT_SPACES}]]+", regex.V1
)


def split_words(text: str) -> list[str]:
    """Words in lower case, without punctuation: runs of letters, digits and marks, but single characters in scripts without spaces.

    Korean has spaces. Composed and decomposed letters are the same (NFC).
    """
    return WORD.findall(unicodedata.normalize("NFC", text).lower())

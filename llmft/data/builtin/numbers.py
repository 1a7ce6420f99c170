"""The built-in set toy_numbers: numbers in English words and in German ones. A toy, made by rule: it shows that a
translation model learns, not how well it translates.

The two languages differ where a model has to learn something: German puts ones before tens and writes all as one word.
"""

from llmft.data.builtin.docstrings import digest
from llmft.data.row import Row

LARGEST = 99_999
ROWS = {"test": 200, "validation": 100, "train": 1500}

ENGLISH_ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
ENGLISH_TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
GERMAN_ONES = [
    "null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf", "dreizehn",
    "vierzehn", "fünfzehn", "sechzehn", "siebzehn", "achtzehn", "neunzehn",
]  # fmt: skip
GERMAN_TENS = ["", "", "zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"]


def toy_numbers() -> dict[str, list[Row]]:
    """Return train, validation and test rows {id, source, target}, the same always; every number stands in one split only.

    All numbers below 100 are in training, larger ones are drawn.
    """
    drawn = sorted(range(100, LARGEST + 1), key=lambda number: digest(str(number)))
    splits: dict[str, list[Row]] = {}
    start = 0
    for split, count in ROWS.items():
        small = list(range(100)) if split == "train" else []
        numbers = sorted(small + drawn[start : start + count - len(small)], key=lambda number: digest(f"{number} order"))
        start += count - len(small)
        splits[split] = [
            Row({"id": str(number), "source": in_english(number), "target": in_german(number)}, f"toy_numbers:{number}")
            for number in numbers
        ]
    return {split: splits[split] for split in ("train", "validation", "test")}


def in_english(number: int) -> str:
    """Return a number from 0 to 99,999 in words, as in British English: one hundred and one."""
    thousands, rest = divmod(number, 1000)
    if thousands:
        joined = "" if not rest else f" and {in_english(rest)}" if rest < 100 else f" {in_english(rest)}"
        return f"{in_english(thousands)} thousand{joined}"
    hundreds, rest = divmod(number, 100)
    if hundreds:
        return f"{ENGLISH_ONES[hundreds]} hundred" + (f" and {in_english(rest)}" if rest else "")
    tens, ones = divmod(number, 10)
    if number < 20:
        return ENGLISH_ONES[number]
    return ENGLISH_TENS[tens] + (f"-{ENGLISH_ONES[ones]}" if ones else "")


def in_german(number: int) -> str:
    """Return a number from 0 to 99,999 in words, written together, with ein before hundert and tausend."""
    thousands, rest = divmod(number, 1000)
    if thousands:
        return before_noun(thousands) + "tausend" + (in_german(rest) if rest else "")
    hundreds, rest = divmod(number, 100)
    if hundreds:
        return before_noun(hundreds) + "hundert" + (in_german(rest) if rest else "")
    tens, ones = divmod(number, 10)
    if number < 20:
        return GERMAN_ONES[number]
    return (f"{before_noun(ones)}und" if ones else "") + GERMAN_TENS[tens]


def before_noun(number: int) -> str:
    """Return a number from 1 to 99 as it stands before hundert, tausend and und: eins loses its s there."""
    return "ein" if number == 1 else in_german(number)

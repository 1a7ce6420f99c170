"""ROUGE-1/2/L/Lsum by Google's rouge-score (Lin 2004, aclanthology.org/W04-1013), the implementation that papers cite."""

from collections.abc import Iterable, Sequence
from importlib.metadata import version

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer

from llmft.config.explain import suggest
from llmft.errors import ConfigError
from llmft.metrics.language import language_code
from llmft.metrics.rows import check_texts
from llmft.metrics.score import Score
from llmft.metrics.sentences import split_sentences
from llmft.metrics.words import split_words

NAMES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
TOKENIZERS = ("default", "unicode")


class UnicodeTokenizer(Tokenizer):
    """Words of any script; rouge-score's own tokenizer passes over all letters but a to z."""

    def tokenize(self, text: str) -> list[str]:
        """The words of a text, single characters in scripts without spaces."""
        return split_words(text)


def rouge(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    use_stemmer: bool = True,
    tokenizer: str | None = None,
    *,
    language: str | None = None,
) -> list[Score]:
    """Mean F1 in 0..100, for each prediction the best over its references.

    ROUGE-Lsum compares sentence by sentence: sentences are put on lines of their own first, as its definition wants.
    tokenizer: default is rouge-score's, for English; unicode knows other scripts; None: default where the target language is
    English, or is not known and the references are written in ASCII letters for the most part. The stemmer is Porter's, for
    English: other languages and the unicode tokenizer go without.
    Raises ConfigError for a tokenizer that there is not, DataError for rows without prediction or reference.
    """
    if tokenizer not in (None, *TOKENIZERS):
        hint = suggest(tokenizer, TOKENIZERS)
        raise ConfigError(f"task.metrics.rouge.tokenizer={tokenizer}: expected one of {', '.join(TOKENIZERS)}, or null.{hint}")
    check_texts("rouge", predictions, references)
    code = language_code(language)
    if tokenizer is None:
        ascii_text = is_ascii(text for targets in references for text in targets)
        tokenizer = "default" if code == "en" or (code is None and ascii_text) else "unicode"
    stem = use_stemmer and tokenizer == "default" and code in (None, "en")
    own = UnicodeTokenizer() if tokenizer == "unicode" else None
    whole = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=stem, tokenizer=own)
    by_line = RougeScorer(["rougeLsum"], use_stemmer=stem, tokenizer=own)
    values: dict[str, list[float]] = {name: [] for name in NAMES}
    for prediction, targets in zip(predictions, references, strict=True):
        found = whole.score_multi(targets, prediction)
        found |= by_line.score_multi([lines(target) for target in targets], lines(prediction))
        for name in NAMES:
            values[name].append(100 * found[name].fmeasure)
    signature = (
        f"rouge-score {version('rouge-score')}|F1 x 100, mean|stemmer:{'yes' if stem else 'no'}|tokenizer:{tokenizer}"
        "|references:best|Lsum:1 sentence a line"
    )
    n = len(predictions)
    return [Score(name, sum(each) / n if n else 0.0, n, signature, per_example=tuple(each)) for name, each in values.items()]


def is_ascii(texts: Iterable[str]) -> bool:
    """Tell whether half of the letters or more are ASCII; no letters: yes."""
    letters = [letter.isascii() for text in texts for letter in text if letter.isalpha()]
    return 2 * sum(letters) >= len(letters)


def lines(text: str) -> str:
    """Put each sentence on a line of its own."""
    return "\n".join(split_sentences(text))

"""What predictions look like as texts: empty, cut off, repeating themselves, copied, all the same."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from llmft.metrics.health import REPEATED_WORDS, is_copied, repeats_itself
from llmft.reports.results import Finding

Row = Mapping[str, Any]

CUT_SHARE = 0.10
"""Above this share of predictions that ran into generation.max_new_tokens the limit is called too low."""
ODD_SHARE = 0.05
"""Share of repetitive or copied predictions, above that of the references, from which it is worth a warning."""
SAME_SHARE = 0.20
"""Share of predictions that are one and the same text."""


def diagnose(predictions: Sequence[Row]) -> list[Finding]:
    """Return what is odd; one `ok` if nothing is. What the references do too is not odd."""
    if not predictions or "nll" in predictions[0]:  # likelihoods, no outputs
        return []
    return of_texts(predictions) if "finish_reason" in predictions[0] else of_choices(predictions)


def of_choices(predictions: Sequence[Row]) -> list[Finding]:
    """Return whether labels or answers are all the same."""
    num = len(predictions)
    (common, same) = Counter(prediction_text(row) for row in predictions).most_common(1)[0]
    usual = Counter(", ".join(row["references"]) for row in predictions).most_common(1)[0][1]
    if num > 1 and same == num and usual < num:
        text = f"All {num} predictions are the same; of the references at most {usual} are"
        return [Finding("bad", f"{text}. The model ignores its source: train longer, or change optimizer.lr.", common[:60])]
    return [Finding("ok", f"Predictions vary: of {num}, at most {same} are the same (references: {usual}).")]


def of_texts(predictions: Sequence[Row]) -> list[Finding]:
    """Return what is odd about written texts."""
    texts = [row["prediction"] for row in predictions]
    sources = [source_text(row["source"]) for row in predictions]
    # Read by row, not by reference: rows with several would count several times.
    references = [row["references"][0] if row["references"] else "" for row in predictions]
    num = len(texts)
    findings = []

    empty = sum(not text.strip() for text in texts)
    if empty:
        text = f"{empty} of {num} predictions are empty; they count as wrong"
        findings.append(
            Finding(
                "bad" if empty > ODD_SHARE * num else "warn", f"{text}. Look at task.prompt and task.target, and train longer."
            )
        )

    cut = sum(row["finish_reason"] == "length" for row in predictions)
    if cut > CUT_SHARE * num:
        text = f"{cut} of {num} predictions were cut off at generation.max_new_tokens"
        findings.append(Finding("warn", f"{text}. Raise it; if they ramble, train longer, so that the model learns to end."))

    repeats, usual = sum(map(repeats_itself, texts)), sum(map(repeats_itself, references))
    if repeats - usual > ODD_SHARE * num:
        text = f"{repeats} of {num} predictions repeat {REPEATED_WORDS} words in a row (references: {usual})"
        findings.append(
            Finding(
                "warn", f"{text}. Try generation.no_repeat_ngram_size={REPEATED_WORDS} or generation.repetition_penalty=1.1."
            )
        )

    copies, usual = sum(map(is_copied, texts, sources)), sum(map(is_copied, references, sources))
    if copies - usual > ODD_SHARE * num:
        text = f"{copies} of {num} predictions are copied word for word from their source (references: {usual})"
        findings.append(Finding("warn", f"{text}. Train longer (training.epochs), or raise optimizer.lr."))

    (common, same), (_, usual) = Counter(texts).most_common(1)[0], Counter(references).most_common(1)[0]
    if common.strip() and same > 2 * usual and same > SAME_SHARE * num:
        text = f"{same} of {num} predictions are the same text. The model ignores its source"
        findings.append(Finding("bad", f"{text}: lower optimizer.lr, and check task.source.", common[:60]))

    return findings or [
        Finding("ok", f"Predictions look sound: of {num}, none is empty, {cut} were cut off, {repeats} repeat themselves.")
    ]


def prediction_text(row: Row) -> str:
    """The prediction of a row as people read it: a text, labels in a list, a number, or how likely a text was."""
    if "nll" in row:
        return row["prediction"] or f"{row['nll'] / max(1, row['tokens']):.3f} nats a token over {row['tokens']} tokens"
    prediction = row["prediction"]
    return ", ".join(prediction) if isinstance(prediction, list) else str(prediction)


def source_text(source: str | Sequence[Mapping[str, str]]) -> str:
    """The source of a predictions row as one text; a conversation as its turns, one below the other."""
    return source if isinstance(source, str) else "\n".join(turn["content"] for turn in source)

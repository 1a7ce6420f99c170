"""How well a language model predicts texts, by token and by byte."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from llmft.data.example import DocumentPrediction
from llmft.metrics.score import Score


def perplexity(
    predictions: Sequence[DocumentPrediction],
    references: Sequence[Any],
    *,
    window: int | None = None,
    overlap: int | None = None,
) -> list[Score]:
    """`perplexity`, exp(total negative log-likelihood / scored tokens), and `bits_per_byte`; lower is better.

    Perplexity can be compared among models with the same tokenizer only; bits per byte, total / ln 2 / bytes of the texts in
    UTF-8, among all. References are not looked at.
    window, overlap: tokens of context at most, and how many of them neighbouring windows have in common, for the signature:
    both change the score (the stride is their difference).
    """
    n = len(predictions)
    sums = np.array([(each.nll, each.tokens, each.num_bytes) for each in predictions], dtype=float).reshape(n, 3)
    nll, tokens, num_bytes = sums.sum(axis=0).tolist()
    parts = {"nll": nll, "tokens": int(tokens), "bytes": int(num_bytes)}
    context = "model" if window is None else window
    stride = "" if window is None else f"|stride:{window - (overlap or 0)}"
    signature = f"corpus|context:{context}{stride}"

    def measure(name: str, compute: Callable[[float, float, float], float]) -> Score:
        def of_sample(places: np.ndarray) -> float:
            return compute(*sums[places].sum(axis=0).tolist())

        return Score(name, compute(nll, tokens, num_bytes), n, signature, False, parts=parts, of_sample=of_sample)

    return [measure("perplexity", token_perplexity), measure("bits_per_byte", byte_bits)]


def token_perplexity(nll: float, tokens: float, num_bytes: float) -> float:
    """exp(nll / tokens); infinite beyond what floats hold."""
    with np.errstate(over="ignore"):
        return float(np.exp(nll / tokens)) if tokens else math.nan


def byte_bits(nll: float, tokens: float, num_bytes: float) -> float:
    """Nats to bits, for each byte."""
    return nll / math.log(2) / num_bytes if num_bytes else math.nan

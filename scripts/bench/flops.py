"""How many floating-point operations a training step needs at least, from the architecture and the tokens alone.

A matrix of n numbers costs 2n per token that passes it. Backward costs that twice: once for the gradient of what came in, once
for that of the weights. So a trained matrix costs 6n per token, a frozen one 4n, and attention three times its forward, of
which there are two products: 4 x heads' width x the pairs of tokens that see each other, T (T + 1) / 2 of a causal document of
T tokens, T^2 where all see all, S x T from a target of T to a source of S. The vocabulary is scored where there is loss.
Padding, recomputation, norms, rotations and the optimizer count as nothing: whoever needs them is that much slower.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

TRAINED, FROZEN, BETWEEN = 6, 4, 6
"""Operations per number and token: forward, gradient of the input, gradient of the weight. BETWEEN: of a pair's products."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of one row: read by the encoder (or 0), by the decoder (or 0), and those that carry loss."""

    source: int
    target: int
    bearing: int


def adapter_numbers(shapes: Iterable[tuple[int, int]], rank: int) -> int:
    """Numbers of low-rank updates of matrices of these shapes."""
    return sum(rank * (rows + columns) for rows, columns in shapes)


def training_flops(config: Mapping[str, Any], rows: Iterable[Lengths], rank: int | None = None) -> float:
    """Return the operations of forward and backward over rows; `rank`: of LoRA on all linear layers of a decoder.

    config: a model's config.json. Raises KeyError for an architecture that is not among those measured.
    """
    count = {"llama": _decoder, "t5": _pair, "marian": _pair, "bert": _encoder}[config["model_type"]]
    return float(sum(count(config, row, rank) for row in rows))


def _decoder(config: Mapping[str, Any], row: Lengths, rank: int | None) -> int:
    width, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    head = config.get("head_dim") or width // config["num_attention_heads"]
    queries, keys = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    shapes = [(width, queries), (width, keys), (width, keys), (queries, width), *[(width, inner)] * 2, (inner, width)]
    numbers = layers * sum(rows * columns for rows, columns in shapes)
    vocabulary = width * config["vocab_size"]
    tokens, pairs = row.target, row.target * (row.target + 1) // 2
    attention = BETWEEN * 2 * layers * queries * pairs
    if rank is None:
        return TRAINED * (numbers * tokens + vocabulary * row.bearing) + attention
    adapters = layers * adapter_numbers(shapes, rank)
    return FROZEN * (numbers * tokens + vocabulary * row.bearing) + TRAINED * adapters * tokens + attention


def _pair(config: Mapping[str, Any], row: Lengths, rank: int | None) -> int:
    assert rank is None, "LoRA is measured on decoders"
    width = config["d_model"]
    if config["model_type"] == "t5":
        heads = config["d_kv"] * config["num_heads"]
        inner, layers = (config["d_ff"],) * 2, (config["num_layers"], config["num_decoder_layers"])
    else:
        heads, inner = width, (config["encoder_ffn_dim"], config["decoder_ffn_dim"])
        layers = config["encoder_layers"], config["decoder_layers"]
    block = 4 * width * heads  # queries, keys, values, output
    source, target = row.source, row.target
    numbers = layers[0] * (block + 2 * width * inner[0]) * source
    numbers += layers[1] * ((block + block // 2 + 2 * width * inner[1]) * target + block // 2 * source)
    pairs = layers[0] * source * source + layers[1] * (target * (target + 1) // 2 + source * target)
    return TRAINED * (numbers + width * config["vocab_size"] * row.bearing) + BETWEEN * 2 * heads * pairs


def _encoder(config: Mapping[str, Any], row: Lengths, rank: int | None) -> int:
    assert rank is None, "LoRA is measured on decoders"
    width, layers, tokens = config["hidden_size"], config["num_hidden_layers"], row.source
    numbers = layers * (4 * width * width + 2 * width * config["intermediate_size"])
    head = width * width + width * len(config["id2label"])  # the pooler, on one token, and the classes
    return TRAINED * (numbers * tokens + head) + BETWEEN * 2 * layers * width * tokens * tokens

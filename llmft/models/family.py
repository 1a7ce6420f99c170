"""The three families of architectures, told apart by a model's own configuration."""

from enum import Enum

from transformers import PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from llmft.errors import ModelError


class Family(Enum):
    """How an architecture reads and writes: decoder (GPT-2, Llama), encoder_decoder (T5, BART), encoder (BERT)."""

    decoder = "decoder"
    encoder_decoder = "encoder-decoder"
    encoder = "encoder"


BY_CODE = {
    "AutoModelForSeq2SeqLM": Family.encoder_decoder,
    "AutoModelForMaskedLM": Family.encoder,
    "AutoModelForCausalLM": Family.decoder,
}
"""What a model that brings its own code says it is, in the configuration's auto_map."""


def family_of(config: PretrainedConfig, code: bool = False) -> Family:
    """Tell the family from config.json: encoder-decoders say so, encoders have a masked language model.

    Some types (BERT) are in both tables, for use as a decoder with is_decoder; the architecture on disk decides.
    code: whether the model's own code is trusted; then auto_map tells the family of an architecture that nobody knows.

    Raises ModelError for an architecture that is no language model.
    """
    kind = config.model_type
    if config.is_encoder_decoder or kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        return Family.encoder_decoder
    masked = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    if masked:
        return Family.encoder
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return Family.decoder
    for name in (getattr(config, "auto_map", None) or {}) if code else ():
        if name in BY_CODE:
            return BY_CODE[name]
    raise ModelError(
        f"model.name: architecture {kind!r} is not a text model that llmft knows; it trains decoders, encoder-decoders and encoders"
    )

"""Operations of a training step: by hand where attention is causal, and as torch counts them where every token sees every other."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    MarianConfig,
    MarianMTModel,
    T5Config,
    T5ForConditionalGeneration,
)

from scripts.bench.flops import Lengths, adapter_numbers, training_flops

LLAMA = {
    "model_type": "llama",
    "hidden_size": 4,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 10,
}
NUMBERS = 4 * 4 + 2 * (4 * 2) + 4 * 4 + 3 * (4 * 8)  # q, k and v, o, mlp: 144
ATTENTION = 12 * 4 * (1 + 2 + 3)  # three tokens that see 1, 2 and 3, in four numbers of queries


def test_decoder_by_hand():
    """Three tokens, the last of which carries loss."""
    assert training_flops(LLAMA, [Lengths(0, 3, 1)]) == 6 * (NUMBERS * 3 + 40) + ATTENTION


def test_lora_by_hand():
    """Frozen matrices need no gradient of their own; rank 2 beside q, k, v, o and the three of the mlp."""
    adapters = 2 * ((4 + 4) + 2 * (4 + 2) + (4 + 4) + 3 * (4 + 8))
    assert training_flops(LLAMA, [Lengths(0, 3, 1)], rank=2) == 4 * (NUMBERS * 3 + 40) + 6 * adapters * 3 + ATTENTION
    assert adapter_numbers([(4, 8), (8, 4)], 2) == 48


def test_rows_add_up():
    """Documents do not see each other: attention of two is twice that of one."""
    one = training_flops(LLAMA, [Lengths(0, 3, 1)])
    assert training_flops(LLAMA, [Lengths(0, 3, 1)] * 2) == 2 * one
    assert training_flops(LLAMA, [Lengths(0, 6, 2)]) > 2 * one


def test_unknown_architecture():
    """What is not known is not guessed."""
    with pytest.raises(KeyError):
        training_flops({"model_type": "mamba"}, [Lengths(0, 3, 1)])


def counted(model: Any, **inputs: torch.Tensor) -> int:
    """Return the operations of forward and backward as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        model(**inputs).loss.backward()
    return counter.get_total_flops()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_decoder_as_torch_counts():
    """One token each, so that causal attention is all there is; the vocabulary is scored for all of the row."""
    config = LlamaConfig(**{**LLAMA, "num_attention_heads": 2, "hidden_size": 8}, tie_word_embeddings=True, head_dim=4)
    model = LlamaForCausalLM._from_config(config, attn_implementation="eager")
    ids = torch.tensor([[3]])
    found = counted(model, input_ids=ids, labels=ids)
    assert training_flops(config.to_dict(), [Lengths(0, 1, 1)]) == found


def test_encoder_as_torch_counts():
    """Every token sees every other."""
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, num_labels=3
    )
    model = BertForSequenceClassification._from_config(config, attn_implementation="eager")
    found = counted(model, input_ids=torch.arange(7)[None], labels=torch.tensor([1]))
    assert training_flops({**config.to_dict(), "id2label": config.id2label}, [Lengths(7, 0, 1)]) == found


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (
            T5Config(vocab_size=20, d_model=8, d_kv=3, d_ff=16, num_layers=2, num_decoder_layers=1, num_heads=2),
            T5ForConditionalGeneration,
        ),
        (
            MarianConfig(
                vocab_size=20,
                d_model=8,
                encoder_layers=2,
                decoder_layers=1,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=16,
                decoder_ffn_dim=12,
                pad_token_id=0,
                decoder_start_token_id=0,
            ),
            MarianMTModel,
        ),
    ],
    ids=["t5", "marian"],
)
def test_pair_as_torch_counts(config: Any, kind: Any):
    """Seven tokens read, one written."""
    config.decoder_start_token_id = 0
    model = kind._from_config(config, attn_implementation="eager")
    found = counted(model, input_ids=torch.arange(1, 8)[None], labels=torch.tensor([[5]]))
    assert training_flops(config.to_dict(), [Lengths(7, 1, 1)]) == found

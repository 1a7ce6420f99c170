"""The plan of memory, by arithmetic."""

import pytest
import torch

from llmft.config.schema import Adapter, AdapterKind
from llmft.errors import DoesNotFit
from llmft.models.adapter import add_adapter
from llmft.models.load import load_pretrained
from llmft.training.memory import paying_tokens, plan_micro_tokens, state_bytes, token_bytes

CPU, GPU = torch.device("cpu"), torch.device("cuda")
GIB = 2**30


@pytest.mark.parametrize(
    ("wanted", "per_token", "state", "free", "longest", "paying", "expected"),
    [
        (None, 1000, 0, 10 * GIB, 300, 1024, 1024),  # room for more than pays off
        (None, 1000, 0, 1_000_000, 300, 1024, 800),  # 0.8 of a million bytes, 1000 a token
        (None, 1000, 300_000, 1_000_000, 300, 1024, 500),
        (None, 1000, 0, 10 * GIB, 5000, 1024, 5000),  # a document is not cut: the longest sets the least
        (123, 1000, 0, 10 * GIB, 300, 1024, 123),  # as set
    ],
)
def test_micro_tokens(wanted, per_token, state, free, longest, paying, expected):
    assert plan_micro_tokens(wanted, per_token, state, free, longest, paying) == expected


@pytest.mark.parametrize(
    ("per_token", "trained_share", "device", "expected"),
    [
        (2_000_000, 0.05, CPU, 704),
        (2_000_000, 1.0, CPU, 2048),
        (524_288, 1.0, CPU, 2048),  # 1 GiB in all
        (131_072, 0.05, CPU, 2048),  # a quarter of it, where few weights are trained
        (1000, 0.05, CPU, 4096),
        (1000, 1.0, CPU, 4096),
        (1000, 1.0, GPU, 16384),
        (2_000_000, 0.05, GPU, 16384),
    ],
)
def test_narrow_and_fully_trained_models_take_more_at_once(per_token, trained_share, device, expected):
    assert paying_tokens(per_token, trained_share, device) == expected


@pytest.mark.parametrize("wanted", [None, 100])
def test_does_not_fit(wanted):
    with pytest.raises(DoesNotFit) as error:
        plan_micro_tokens(wanted, 1024**2, 2 * GIB, 3 * GIB, 512, 1024)
    assert str(error.value) == (
        "training needs about 2.5 GiB with the longest row of 512 tokens, 3.0 GiB are free. Set "
        "model.gradient_checkpointing=true, adapter=lora, a smaller task.max_source_tokens, or a smaller model."
    )


def test_the_limit_is_exact():
    assert plan_micro_tokens(None, 1000, 0, 1_000_000, 800, 1024) == 800
    with pytest.raises(DoesNotFit):
        plan_micro_tokens(None, 1000, 0, 1_000_000, 801, 1024)


def test_bytes_of_a_model(tiny):
    full = load_pretrained(tiny / "gpt2", torch.float32, CPU)
    vocabulary = full.model.config.vocab_size
    # tied embedding, positions, per layer: norms, attention, two linear layers; the last norm
    layer = 2 * 2 * 32 + (32 * 96 + 96) + (32 * 32 + 32) + (32 * 128 + 128) + (128 * 32 + 32)
    count = vocabulary * 32 + 512 * 32 + 2 * layer + 2 * 32
    assert state_bytes(full) == (4 * count, 12 * count)  # float32; gradient and Adam's two moments
    assert token_bytes(full, torch.float32, checkpointing=False) == 2 * 32 * 34 * 2
    assert token_bytes(full, torch.bfloat16, checkpointing=False) == 2 * 32 * 34
    assert token_bytes(full, torch.bfloat16, checkpointing=True) == 2 * 32 * 2

    for name in ("t5", "bart"):  # 2 layers each; a decoder's token is the dearer: 34 + 13 bytes a layer, against 34 + 4
        pair = load_pretrained(tiny / name, torch.float32, CPU)
        assert token_bytes(pair, torch.bfloat16, checkpointing=False) == 2 * 32 * (34 + 13)
        assert token_bytes(pair, torch.float32, checkpointing=True) == 2 * 32 * 2 * 2
    pair.model.config.decoder_layers = 1
    assert token_bytes(pair, torch.bfloat16, checkpointing=False) == 32 * (2 * 34 + 1 * 4)

    lora = load_pretrained(tiny / "llama", torch.bfloat16, CPU)
    base, _ = state_bytes(lora)
    add_adapter(lora, Adapter(name=AdapterKind.lora, r=2))
    attention = 2 * (32 + 32) * 2 + 2 * (32 + 16) * 2  # q, o; k, v are half as wide
    mlp = 2 * (32 + 64) * 3
    added = 2 * (attention + mlp)
    assert state_bytes(lora) == (base + 4 * added, 12 * added)

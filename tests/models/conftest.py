"""What tests of models share: tiny models loud enough that mistakes show, and documents of many lengths."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from llmft.data.encode import Encoded
from llmft.models import filling
from llmft.models.load import Head, Pretrained, load_pretrained

LENGTHS = (9, 17, 2, 1, 9, 30, 5)


def _loud(model: PreTrainedModel) -> PreTrainedModel:
    """Make fresh weights larger: at their usual size attention is all but even, and every loss all but log(vocabulary).

    An encoder-decoder needs more of it, or its decoder pays no heed to what was read; not T5, which scales no scores down.
    """
    embedding, other = (20, 30) if model.config.is_encoder_decoder and model.config.model_type != "t5" else (4, 6)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim >= 2 and "embed_positions" not in name:
                weight.mul_(embedding if "embed" in name or "wte" in name or "shared" in name else other)
    return model.eval()


@pytest.fixture(params=[False, True], ids=["", "filled up"])
def filled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without rows of zeros behind a batch, and with those that batches in 16 bits get, in the format of the test."""
    if request.param:
        monkeypatch.setattr(filling, "pays", lambda x: True)


@pytest.fixture(scope="session")
def loud() -> Callable[[PreTrainedModel], PreTrainedModel]:
    return _loud


@pytest.fixture
def open_tiny(tiny: Path) -> Callable[..., Pretrained]:
    """Load a tiny model in float32, its weights made loud, in eval mode."""

    def load(name: str, head: Head = Head.text, labels: Sequence[str] = ()) -> Pretrained:
        problem = "single_label_classification" if labels else None
        pretrained = load_pretrained(tiny / name, torch.float32, torch.device("cpu"), head, labels, problem)
        _loud(pretrained.model)
        return pretrained

    return load


@pytest.fixture
def documents() -> list[Encoded]:
    """Random documents; about half of each one's tokens, the later ones, carry loss."""
    random = np.random.default_rng(0)
    return [
        Encoded(
            id=str(number),
            ids=random.integers(3, 300, length).astype(np.int32),
            loss_mask=np.arange(length) >= length // 2,
            source_ids=None,
            where=f"f:{number}",
            units=length - max(1, length // 2),
        )
        for number, length in enumerate(LENGTHS)
    ]


@pytest.fixture
def pairs() -> list[Encoded]:
    """Sources and answers of many lengths; of one answer the first two tokens carry no loss."""
    random = np.random.default_rng(0)
    sizes = [(9, 4), (17, 1), (2, 12), (1, 3), (30, 7), (5, 20)]
    made = []
    for number, (source, answer) in enumerate(sizes):
        ids = random.integers(4, 80, answer).astype(np.int32)
        mask = np.arange(answer) >= (2 if number == 4 else 0)
        source_ids = random.integers(4, 80, source).astype(np.int32)
        made.append(Encoded(str(number), ids, mask, source_ids, f"f:{number}", units=int(mask.sum())))
    return made

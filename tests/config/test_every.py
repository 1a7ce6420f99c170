"""Intervals as people write them."""

import pytest

from llmft.config.every import Every, parse_every
from llmft.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "every"),
    [
        ("200", Every(200, "steps")),
        ("200 steps", Every(200, "steps")),
        ("1 step", Every(1, "steps")),
        ("1 epoch", Every(1, "epochs")),
        ("0.5 epochs", Every(0.5, "epochs")),
        (".25epochs", Every(0.25, "epochs")),
        ("1e3", Every(1000, "steps")),
        ("never", None),
    ],
)
def test_read(text, every):
    assert parse_every(text) == every


@pytest.mark.parametrize(
    "text", ["", "often", "0", "-1", "0.5", "0 epochs", "1.5 steps", "2 hours", "epoch", "inf", "nan epochs", "1e999"]
)
def test_refused(text):
    with pytest.raises(ConfigError, match="expected"):
        parse_every(text)

"""The quick look finds one bad number among many, in any format, and takes no large number for a bad one."""

import math

import pytest
import torch

from llmft.hardware.finite import first_not_finite


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_bad_number(bad, dtype):
    tensors = {name: torch.randn(50, 7).to(dtype) for name in "abc"}
    assert first_not_finite(tensors.items()) is None
    tensors["b"][33, 5] = bad
    assert first_not_finite(tensors.items()) == "b"


def test_infinities_do_not_cancel():
    assert first_not_finite([("a", torch.tensor([math.inf, -math.inf])), ("b", torch.tensor([1.0]))]) == "a"


def test_large_numbers_are_numbers():
    # the square of each is beyond float32
    assert first_not_finite([("a", torch.tensor([3e38, -3e38])), ("b", torch.tensor([6e4], dtype=torch.float16))]) is None


def test_what_has_no_infinity():
    assert first_not_finite([]) is None
    assert first_not_finite([("packed", torch.tensor([255], dtype=torch.uint8)), ("empty", torch.empty(0))]) is None

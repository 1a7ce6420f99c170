"""How many rows a batch is filled up with. That they change nothing is tested with the layers, by the fixture `filled`."""

import pytest
import torch

from llmft.models import filling
from llmft.models.filling import filled_up_rows, pays, rounded_up, to_rows


def test_sizes():
    assert [rounded_up(count) for count in (0, 1, 63, 64, 65)] == [0, 64, 64, 64, 128]
    assert to_rows(torch.ones(2, 3), 4).tolist() == [[1] * 3, [1] * 3, [0] * 3, [0] * 3]
    assert filled_up_rows(torch.tensor([3, 7])).tolist() == [3] + [7] * 31
    assert filled_up_rows(torch.arange(32)).tolist() == list(range(32))


@pytest.mark.parametrize(("dtype", "expected"), [(torch.bfloat16, True), (torch.float32, False)])
def test_what_is_computed_in_32_bits_stays_as_it_is(dtype, expected):
    assert pays(torch.zeros(1, dtype=dtype)) is expected
    assert filling.STEP % filling.FEW_STEP == 0

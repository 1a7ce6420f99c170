"""Products with weights that oneDNN has laid out, against the formula in float64."""

import pytest
import torch

from llmft.models.packed import can_pack, packed, product

pytestmark = pytest.mark.skipif(
    not can_pack(torch.device("cpu"), torch.bfloat16), reason="no products in bfloat16 on this processor"
)


@pytest.mark.parametrize("rows", [0, 1, 8, 70, 1500])
@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
def test_product(rows, bias):
    torch.manual_seed(0)
    x, weight, b = (torch.randn(shape).bfloat16() for shape in ((rows, 96), (40, 96), (40,)))
    before = weight.clone()
    found = product(x, packed(weight), b if bias else None)
    expected = x.double() @ weight.double().t() + (b.double() if bias else 0)
    torch.testing.assert_close(found.double(), expected, rtol=2**-8, atol=1e-3)  # rounded once
    assert torch.equal(found, torch.addmm(b, x, weight.t()) if bias else x @ weight.t())
    assert torch.equal(weight, before)


def test_a_weight_that_lies_the_other_way():
    """As that of GPT-2's Conv1D, which is transposed."""
    torch.manual_seed(0)
    x, weight = torch.randn(5, 96).bfloat16(), torch.randn(96, 40).bfloat16()
    torch.testing.assert_close(product(x, packed(weight.t()), None), x @ weight, rtol=2**-7, atol=1e-3)


def test_only_where_products_are_onednns():
    assert not can_pack(torch.device("cpu"), torch.float32)
    assert not can_pack(torch.device("meta"), torch.bfloat16)


def test_not_where_it_is_switched_off():
    with torch.backends.mkldnn.flags(enabled=False):
        assert not can_pack(torch.device("cpu"), torch.bfloat16)

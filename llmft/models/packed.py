"""Weights laid out in the order in which oneDNN's products in bfloat16 read them.

A product lays out its weight anew each time, which for few rows costs nearly as much as the product itself. Done once, products
with SmolLM2-135M's weights are 3 to 15 % faster for 700 to 1,000 rows, and 18 to 39 % for 64.
"""

import platform

import torch
from torch import Tensor

# N flat tokens, I and O input and output width of a layer

ROWS = 1024  # of the products that the order is chosen for; those of fewer or more gain by it, too
X86 = ("x86_64", "AMD64")


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether products on this device and in this format are oneDNN's own; on ARM another library's stand in for them."""
    mkldnn = torch.backends.mkldnn
    return (
        device.type == "cpu"
        and dtype is torch.bfloat16
        and platform.machine() in X86
        and bool(mkldnn.is_available() and mkldnn.enabled)
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def packed(weight_OI: Tensor) -> Tensor:
    """Return a copy for `product` alone: of its elements nothing else can be read."""
    return torch.ops.mkldnn._reorder_linear_weight(weight_OI.detach().contiguous(), ROWS)


def product(x_NI: Tensor, packed_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """Return xW^T + bias, to the bit what `torch.addmm` gives with the weight that was packed."""
    return torch.ops.mkldnn._linear_pointwise(x_NI, packed_OI, bias_O, "none", [], "")

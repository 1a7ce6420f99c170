"""Rows of zeros behind the tokens of a batch, so that the products of its layers have one of few sizes.

In 16 bits a processor's products are oneDNN's, which makes a program for each size: in half a millisecond, of half a MiB, part of
which it never gives back. A pass has some sixty products for its number of tokens, which no other pass may have again: a training's
memory would grow by 40 MiB with each of its passes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# N rows of tokens, M rows that are read, D model width

STEP = 64
"""Numbers of tokens are multiples of it: on average 32 rows for nothing, of a thousand."""
FEW_STEP = 32
"""The same of rows that are read behind the last layer."""


def pays(x: Tensor) -> bool:
    """Tell whether a tensor's products are made by programs for their sizes."""
    return x.dtype.itemsize < 4 and x.device.type == "cpu"


def rounded_up(count: int, step: int = STEP) -> int:
    """Return the multiple that is not less."""
    return -(-count // step) * step


def to_rows(x_ND: Tensor, count: int) -> Tensor:
    """Return so many rows, those that are added zeros."""
    return F.pad(x_ND, (0, 0, 0, count - len(x_ND)))


def filled_up_rows(rows_M: Tensor) -> Tensor:
    """Return the places of rows, the last one several times; none of none."""
    return torch.cat([rows_M, rows_M[-1:].expand(rounded_up(len(rows_M), FEW_STEP) - len(rows_M))])

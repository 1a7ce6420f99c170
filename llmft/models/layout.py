"""Heads of flat rows, laid out in the order that attention's products take them, some rows several times to fill products up."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from llmft.hardware.arena import Arena, empty

# N heads of all flat rows, row by row, E head width, P rows that are laid out


class Layout(NamedTuple):
    """Which of the flat heads (N) each row is (P), any of them for filling. filling: the places of that; places_N: where each head is."""

    order_P: Tensor
    filling: Tensor
    places_N: Tensor

    def lay_out(self, x_NE: Tensor, arena: Arena | None = None) -> Tensor:
        """Return heads in their new places (P, E), in an arena if there is one."""
        return torch.index_select(x_NE, 0, self.order_P, out=empty(arena, x_NE, len(self.order_P), x_NE.shape[1]))

    def lay_out_gradient(self, x_NE: Tensor) -> Tensor:
        """The same with zeros for filling, from which nothing comes back."""
        return self.lay_out(x_NE).index_fill_(0, self.filling, 0)

    def flat(self, x_PE: Tensor, arena: Arena | None = None) -> Tensor:
        """Return heads to where they came from (N, E), in an arena if there is one."""
        return torch.index_select(x_PE, 0, self.places_N, out=empty(arena, x_PE, len(self.places_N), x_PE.shape[1]))


def layout_of(parts: Iterable[tuple[Tensor, Tensor]]) -> Layout:
    """Return the layout of parts one after the other: which flat head each row is, and whether it is there to fill up (any shapes)."""
    order, filling = [torch.empty(0, dtype=torch.long)], [torch.empty(0, dtype=torch.bool)]
    for heads, fills in parts:
        order.append(heads.flatten())
        filling.append(fills.expand(heads.shape).flatten())
    order_P, filling_P = torch.cat(order), torch.cat(filling)
    own = (~filling_P).nonzero()[:, 0]
    places_N = torch.empty_like(own)
    places_N[order_P[own]] = own
    return Layout(order_P, filling_P.nonzero()[:, 0], places_N)

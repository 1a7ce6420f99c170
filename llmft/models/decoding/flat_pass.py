"""A pass of a Llama-like decoder over flat tokens, on the layers that training uses, with keys and values kept.

The same sums as transformers' own forward pass with fewer passes over memory between the products.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from llmft.models import filling
from llmft.models.flat.decoder import Layer, embedded, layers_of, through
from llmft.models.flat.pointwise import rotate
from llmft.models.packed import packed
from llmft.models.projection import Projection, project, projection_of
from llmft.models.rounding import narrow

# N flat tokens, Q of them that ask, V vocabulary, H query heads, K key/value heads, E head width

STEP = 8
"""Numbers of rows are multiples of it, if they are not less: a row for nothing costs a tenth of what making a size's programs does, once."""


@dataclass(frozen=True)
class Flat:
    """A decoder's layers, and the layer that makes scores, None: as the model calls it."""

    layers: list[Layer]
    head: Projection | None = None


def flat_of(model: PreTrainedModel) -> Flat | None:
    """Return what a pass computes with; None for architectures that are made in another way."""
    layers = layers_of(model)
    return None if layers is None else Flat(layers)


def packed_flat_of(model: PreTrainedModel, dtype: torch.dtype) -> Flat | None:
    """Return the same with copies of all weights of products, `packed`, and the same scores to the bit.

    None, too, where some layer has an update, or scores are made by something else than a linear layer.
    """
    layers = layers_of(model)
    if layers is None:
        return None
    head = projection_of(model.get_output_embeddings())
    every = [each for layer in layers for each in (*layer.attention, *layer.feed_forward)]
    if head is None or any(each.update for each in (*every, head)):
        return None

    def pack(each: Projection) -> Projection:
        return Projection(packed(narrow(each.weight, dtype)), None if each.bias is None else narrow(each.bias, dtype).detach())

    halves = [(tuple(map(pack, layer.attention)), tuple(map(pack, layer.feed_forward))) for layer in layers]
    new = [replace(layer, attention=a, feed_forward=b) for layer, (a, b) in zip(layers, halves, strict=True)]
    return Flat(new, pack(head))


class Keeper(Protocol):
    """Who keeps keys and values and knows which a token sees; see `decoder.Prompts`."""

    def read(
        self, place: int, query_QHE: Tensor, key_NKE: Tensor, value_NKE: Tensor, scale: float, window: int | None, ends: bool
    ) -> Tensor:
        """Keep what layer `place` has new, and return what the queries read (Q, H, E). ends: only a prompt's last token asks."""


class Attending:
    """What a layer asks for attention, in the place of `flat.attending.Attending`; `rows` are those that ask, None: all."""

    arena = None  # nothing waits for gradients

    def __init__(
        self, keeper: Keeper, place: int, layer: Layer, rows: Tensor | None, asking: int, cos_NE: Tensor, sin_NE: Tensor
    ) -> None:
        self.keeper, self.place, self.layer, self.rows = keeper, place, layer, rows
        self.turn_k = cos_NE[:, None], sin_NE[:, None]
        self.turn_q = self.turn_k if rows is None else (cos_NE[rows[:asking], None], sin_NE[rows[:asking], None])
        self.width = cos_NE.shape[-1]

    def heads(self, x: Tensor) -> Tensor:
        """Return a projection's output as heads (Q or N, heads, E)."""
        return x.unflatten(1, (-1, self.width))

    def forward(self, q_QHE: Tensor, k_NKE: Tensor, v_NKE: Tensor) -> tuple[Tensor, None]:
        """Return what is read (Q, H, E), and nothing for a backward pass."""
        asking, tokens = len(self.turn_q[0]), len(self.turn_k[0])
        turned_QHE, k_NKE = rotate(q_QHE[:asking], *self.turn_q), rotate(k_NKE[:tokens], *self.turn_k)
        layer, ends = self.layer, self.rows is not None
        out_QHE = self.keeper.read(self.place, turned_QHE, k_NKE, v_NKE[:tokens], layer.scale, layer.window, ends)
        return out_QHE if asking == len(q_QHE) else filling.to_rows(out_QHE.flatten(1), len(q_QHE)).view(q_QHE.shape), None


def flat_scores(
    keeper: Keeper,
    model: PreTrainedModel,
    flat: Flat,
    tokens_N: Tensor,
    positions_N: Tensor,
    rows: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """Return the scores (Q, V) after the tokens at `rows`, None: all. In the last layer the others leave keys and values alone."""
    base, asking = model.base_model, len(tokens_N if rows is None else rows)
    h_ND = embedded(model, tokens_N, dtype)
    cos, sin = base.rotary_emb(h_ND[None], position_ids=positions_N[None])  # type: ignore[operator]
    if filling.pays(h_ND):
        h_ND = filled(h_ND)
        rows = None if rows is None else filled(rows[:, None])[:, 0]  # the first token asks once more
    for place, layer in enumerate(flat.layers):
        asked = rows if place == len(flat.layers) - 1 else None
        h_ND = through(h_ND, layer, Attending(keeper, place, layer, asked, asking, cos[0], sin[0]))  # type: ignore[arg-type]
    h_ND = base.norm(h_ND)  # type: ignore[operator]
    if flat.head is None:
        return model.get_output_embeddings()(h_ND)[:asking]
    ((scores_QV,), _) = project(h_ND.to(dtype), [flat.head])
    return scores_QV[:asking]


def filled(x_ND: Tensor) -> Tensor:
    """Return rows up to a multiple of STEP, those that are added zeros; a few as they are."""
    return x_ND if len(x_ND) < STEP else filling.to_rows(x_ND, filling.rounded_up(len(x_ND), STEP))

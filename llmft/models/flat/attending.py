"""How the layers of one batch attend: its documents, the positions' angles, and the kernel of its device."""

from typing import Any

from torch import Tensor

from llmft.data.batch import Stream
from llmft.hardware.arena import Arena
from llmft.models.flat import varlen
from llmft.models.flat.blocks import blocks_of
from llmft.models.flat.causal import Causal
from llmft.models.flat.pointwise import rotate

# N flat tokens, Q of them that ask, H query heads, K key/value heads, E head width


class Attending:
    """Attention of one kind of layer over one batch; `rows` are those that ask, None: all, as it has to be on a GPU.

    arena: where what layers keep lies, None: wherever there is room.
    """

    def __init__(
        self,
        stream: Stream,
        rows: Tensor | None,
        cos_NE: Tensor,
        sin_NE: Tensor,
        scale: float,
        window: int | None,
        arena: Arena | None = None,
    ):
        lengths, parents = stream.lengths, stream.parents
        self.rows = rows
        self.arena = arena
        self._scale = scale
        self._window = window
        self._head_width = cos_NE.shape[-1]
        self._turn_k = cos_NE[:, None], sin_NE[:, None]
        self._turn_q = self._turn_k if rows is None else (cos_NE[rows, None], sin_NE[rows, None])
        self._ends: varlen.Ends | None = None
        if cos_NE.is_cuda:
            assert rows is None
            assert parents is None
            self._ends = varlen.ends_of(lengths, cos_NE.device)
        else:
            self._blocks = blocks_of(lengths, window, None if rows is None else rows.tolist(), parents)
            self._causal: dict[tuple[int, int], Causal] = {}  # by numbers of heads
            cos_Q1E, sin_Q1E = self._turn_q
            self._turn_q = cos_Q1E * scale, sin_Q1E * scale  # so that queries are scaled where they are turned

    def heads(self, x: Tensor) -> Tensor:
        """Return a projection's output as heads (Q or N, heads, E)."""
        return x.unflatten(1, (-1, self._head_width))

    def forward(self, q_QHE: Tensor, k_NKE: Tensor, v_NKE: Tensor) -> tuple[Tensor, Any]:
        """Return what is read (Q, H, E), and what the backward pass needs."""
        q_QHE, k_NKE = rotate(q_QHE, *self._turn_q), rotate(k_NKE, *self._turn_k)
        if self._ends is not None:
            return varlen.attend(q_QHE, k_NKE, v_NKE, self._ends, self._scale, self._window)
        heads = q_QHE.shape[1], k_NKE.shape[1]
        if heads not in self._causal:
            self._causal[heads] = Causal(self._blocks, *heads, q_QHE)
        return self._causal[heads].forward(q_QHE, k_NKE, v_NKE, self.arena)

    def backward(self, held: Any, gradient_QHE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of q, k and v, as heads; those of v side by side."""
        if self._ends is not None:
            dq_QHE, dk_NKE, dv_NKE = varlen.attend_backward(gradient_QHE, held)
        else:
            heads = gradient_QHE.shape[1], len(held.k_KNE)
            dq_QHE, dk_NKE, dv_NKE = self._causal[heads].backward(gradient_QHE, held)
        (cos_q, sin_q), (cos_k, sin_k) = self._turn_q, self._turn_k
        # turned back by the opposite angle
        return rotate(dq_QHE, cos_q, -sin_q), rotate(dk_NKE, cos_k, -sin_k), dv_NKE.flatten(1)

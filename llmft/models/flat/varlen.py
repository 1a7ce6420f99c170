"""Causal attention over documents laid end to end on a GPU, by torch's kernel for sequences of varying length."""

import inspect
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmft.models.attention import UnsupportedAttention

# N flat tokens, H query heads, K key/value heads, E head width


class Held(NamedTuple):
    """Inputs and output, with the graph between them."""

    inputs: tuple[Tensor, ...]
    out_NHE: Tensor


class Ends(NamedTuple):
    """Where documents end among the flat tokens, from 0 (int32), and the longest one's tokens."""

    places: Tensor
    longest: int


def ends_of(lengths: Sequence[int], device: torch.device) -> Ends:
    """Return the documents' ends."""
    return Ends(torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device), max(lengths))


def attend(q_NHE: Tensor, k_NKE: Tensor, v_NKE: Tensor, ends: Ends, scale: float, window: int | None) -> tuple[Tensor, Held]:
    """Return what each token reads (N, H, E), and what the backward pass needs.

    Raises UnsupportedAttention for numbers that the kernel does not take, and where torch is too old for its present form.
    """
    kernel, options = kernel_of()
    if q_NHE.dtype is not torch.bfloat16:
        raise UnsupportedAttention(f"{q_NHE.dtype} in the kernel for documents of varying length")
    with torch.enable_grad():
        inputs = tuple(each.detach().requires_grad_() for each in (q_NHE, k_NKE, v_NKE))
        seen = (-1 if window is None else window - 1, 0)  # tokens before and behind; none behind
        sizes = ends.places, ends.places, ends.longest, ends.longest
        out_NHE = kernel(*inputs, *sizes, scale=scale, window_size=seen, **options)
    return out_NHE.detach(), Held(inputs, out_NHE)


def attend_backward(gradient_NHE: Tensor, held: Held) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v."""
    return torch.autograd.grad(held.out_NHE, held.inputs, gradient_NHE)  # type: ignore[return-value]


def kernel_of() -> tuple[Any, dict[str, bool]]:
    """Return the kernel and the options that this version of torch wants for heads that share keys."""
    from torch.nn.attention.varlen import varlen_attn  # loads what only GPUs need

    takes = inspect.signature(varlen_attn).parameters
    if "window_size" not in takes:  # before torch 2.11
        raise UnsupportedAttention("torch's kernel for documents of varying length, which torch 2.11 brings")
    return varlen_attn, {"enable_gqa": True} if "enable_gqa" in takes else {}

"""Weights that stand in for a model's own while it writes: adapters folded in, cast once instead of at every token, laid out once."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from llmft.errors import LlmftError
from llmft.hardware.memory import available_bytes
from llmft.models.decoding.flat_pass import Flat, packed_flat_of
from llmft.models.load import Pretrained
from llmft.models.packed import can_pack
from llmft.models.rounding import narrow

DENSE = (nn.Linear, Conv1D)
PEFT_LINEAR = "peft.tuners.lora.layer.Linear"  # by name: PEFT is loaded only where there is an adapter
SHARE = 0.5  # of the memory that is free may be taken for it
PACK_FROM = 8192  # tokens that are read and written: fewer do not pay for laying out the weights


@dataclass(frozen=True)
class StandIns:
    """New weights for some dense layers, and the adapted layers whose adapters are in them. The model's own are never written to.

    flat: a decoder's layers with the weights of all products packed, which need no others.
    """

    weights: tuple[tuple[nn.Module, nn.Parameter], ...]
    adapted: tuple[Any, ...]
    flat: Flat | None = None

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model compute with them inside the block."""
        own = [module._parameters["weight"] for module, _ in self.weights]
        try:
            for module, weight in self.weights:
                module._parameters["weight"] = weight
            for layer in self.adapted:
                layer.merged_adapters = ["default"]  # PEFT then asks the layer underneath alone
            yield
        finally:
            for layer in self.adapted:
                layer.merged_adapters = []
            for (module, _), before in zip(self.weights, own, strict=True):
                module._parameters["weight"] = before


def stand_ins(pretrained: Pretrained, precision: torch.dtype, tokens: int = 0) -> StandIns:
    """Return new weights for dense layers that have an adapter or another format than is computed in; none if too large.

    W + (alpha/r) BA is added up in float32 and rounded once (Hu et al. 2021, arXiv:2106.09685). tokens: how many will be read
    and written at most; for many, a decoder's weights are packed, which changes no score.
    """
    model = pretrained.model
    adapted: dict[int, Any] = {id(layer.base_layer): layer for layer in model.modules() if can_fold(layer)}
    chosen: list[tuple[nn.Module, nn.Parameter, torch.dtype]] = []
    dense = 0
    for module in model.modules():
        weight = module._parameters.get("weight")
        if type(module) in DENSE and weight is not None and weight.is_floating_point():
            dense += weight.numel()
            kind = precision if weight.dtype is torch.float32 else weight.dtype
            if id(module) in adapted or kind is not weight.dtype:
                chosen.append((module, weight, kind))
    try:
        room = available_bytes(model.device) * SHARE
    except LlmftError:  # the system does not say
        room = 0
    size = sum(weight.numel() * kind.itemsize for _, weight, kind in chosen)
    if size > room:
        return StandIns((), ())
    weights = []
    for module, weight, kind in chosen:
        layer, new = adapted.get(id(module)), weight
        if layer is not None:
            new = nn.Parameter(weight.detach().float() + layer.get_delta_weight("default").detach().float(), False)
            new.coarse = True  # type: ignore[attr-defined]  # an update is small beside the steps of 16 bits
        weights.append((module, nn.Parameter(narrow(new, kind).detach(), requires_grad=False)))
    found = StandIns(tuple(weights), tuple(adapted.values()))
    if tokens >= PACK_FROM and can_pack(model.device, precision) and size + dense * precision.itemsize <= room:
        with found.in_place(), suppress(RuntimeError, MemoryError):  # there may be no room for it after all
            flat = packed_flat_of(model, precision)
            if flat is not None:
                return StandIns((), (), flat)
    return found


def can_fold(layer: Any) -> bool:
    """Whether a layer is a plain dense one with one low-rank update, the one that llmft trains."""
    return (
        f"{type(layer).__module__}.{type(layer).__name__}" == PEFT_LINEAR
        and type(layer.base_layer) in DENSE
        and list(layer.lora_A) == layer.active_adapters == ["default"]
        and not layer.lora_variant  # DoRA and others
        and not layer.disable_adapters
        and not layer.merged
        and layer.lora_B["default"].bias is None
    )

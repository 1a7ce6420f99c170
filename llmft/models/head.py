"""What a model ends in: the layers that turn hidden states into token, span or class scores."""

from collections.abc import Sequence
from enum import Enum
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from llmft.errors import ConfigError
from llmft.models.family import Family


class Head(Enum):
    """What hidden states become: text and masked the next or the masked token, span a start and an end, label the classes."""

    text = "text"
    masked = "masked"
    span = "span"
    label = "label"


FRESH = {Head.span, Head.label}  # heads that a pretrained model does not come with, so that training begins with random ones

REGRESSION = "regression"  # transformers' name in a configuration's problem_type

MADE_BY: dict[Head, tuple[Any, Any, str]] = {
    Head.masked: (AutoModelForMaskedLM, MODEL_FOR_MASKED_LM_MAPPING_NAMES, "predicting masked words"),
    Head.span: (AutoModelForQuestionAnswering, MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES, "marking answers in a text"),
    Head.label: (AutoModelForSequenceClassification, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES, "classification"),
}


def class_of(config: PretrainedConfig, family: Family, head: Head) -> Any:
    """Return transformers' class for a family with a head. Raises ConfigError where an architecture does not have it."""
    if head is Head.text:
        if family is Family.encoder:
            raise ConfigError(
                f"model.name: {config.model_type} is an encoder: it reads and writes no text. Name another model."
            )
        return AutoModelForCausalLM if family is Family.decoder else AutoModelForSeq2SeqLM
    made_by, known, purpose = MADE_BY[head]
    if config.model_type not in known or (head is not Head.label and family is not Family.encoder):
        wanted = "" if head is Head.label else ", which is for encoders"
        raise ConfigError(f"model.name: there is no {config.model_type} for {purpose}{wanted}. Name a model of another kind.")
    return made_by


def own_labels(config: PretrainedConfig) -> list[str]:
    """Return the names of the classes that a configuration has, in their order."""
    names: dict[Any, str] = dict(config.id2label or {})
    return [names[place] for place in sorted(names)]


def label_settings(config: PretrainedConfig, labels: Sequence[str], problem: str | None) -> dict[str, Any]:
    """Return how the configuration names its classes, empty if it names them so already or none are asked for."""
    if problem is None or config.problem_type in (problem, None):
        own = own_labels(config)
        same = len(own) == 1 if problem == REGRESSION else own == list(labels)
        if same or not (labels or problem == REGRESSION):
            return {}
    if problem == REGRESSION:
        return {"num_labels": 1}
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: place for place, label in enumerate(labels)},
    }


def head_modules(model: PreTrainedModel) -> list[str]:
    """Return the names of the modules with weights that stand on top of the base model."""
    return [
        name
        for name, child in model.named_children()
        if name != model.base_model_prefix and any(True for _ in child.parameters())
    ]


def module_of(key: str, prefix: str) -> str:
    """Return the name of the head's module that a weight belongs to, or the weight's own name if it is none of a head's.

    A pooler counts as head: it stands inside BERT's base model, but a masked language model is saved without.
    """
    parts = key.split(".")
    if parts[0] != prefix:
        return parts[0]
    return ".".join(parts[:2]) if parts[1] == "pooler" else key


@torch.no_grad()
def make_fresh(model: PreTrainedModel, names: Sequence[str]) -> None:
    """Give the named modules random weights as the architecture draws them, by torch's generator alone.

    Also where loading did so already: what is drawn then does not hang on which weights were missing.
    """
    for name in names:
        for module in model.get_submodule(name).modules():
            for weight in module.parameters(recurse=False):
                weight._is_hf_initialized = False  # type: ignore[attr-defined]
            model._init_weights(module)

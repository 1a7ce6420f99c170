"""The plan: what will be trained, on how many tokens, and whether it fits in memory."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from llmft.errors import DoesNotFit
from llmft.models.family import Family
from llmft.models.load import Pretrained

# Activations of one transformer layer in 16 bit: 34 x tokens x width bytes (Korthikanti et al. 2022, arXiv:2205.05198,
# without the attention matrix, which no kernel used here keeps). Checkpointed layers keep their input alone: 2 bytes.
LAYER_BYTES = 34
CHECKPOINTED_LAYER_BYTES = 2
# By the same count: a decoder layer that reads an encoder has a second attention and its norm (11 + 2), and keeps a key and a
# value of every source token (2 + 2).
CROSS_ATTENTION_BYTES = 13
READ_BYTES = 4

# Beyond this many tokens a pass gets larger, but hardly faster: a LoRA training of SmolLM2-135M in bf16 took 0.95 of the time with 768, and
# 90 of 1,340 MiB more.
MICRO_TOKENS = {"cpu": 704, "cuda": 16384}
# The same on a processor where most weights are trained: every pass adds up their gradients, which takes as long as some 60 tokens do,
# however large the model is (counted in passes over memory; measured on SmolLM2-135M: a twentieth of a step).
FULL_TOKENS = 2048
# Bytes of activations up to which a processor takes more tokens at once: narrow models gain by it, up to so many tokens; an
# encoder-decoder of T5-small's size a fifth of its time. Where few weights are trained there are no gradients to add up.
SMALL_PASS, SMALL_ADAPTED_PASS = 1 << 30, 1 << 28
MOST_TOKENS = 4096
MARGIN = 1.25  # of what a trial took: micro-batches to come leave holes in memory; 25 steps of a LoRA training took 1.1 of it
SHARE = 0.8  # of the free memory; the rest is for what the estimate does not know

SMALLER = "Set model.gradient_checkpointing=true, adapter=lora, a smaller task.max_source_tokens, or a smaller model."
"""What helps where not even one example fits."""


@dataclass(frozen=True)
class Plan:
    """What a run is about to do; written to plan.json and shown before step 1."""

    parameters: int
    trained_parameters: int
    train_rows: int
    left_out_rows: int
    validation_rows: int
    test_rows: int
    tokens_per_epoch: int
    loss_units_per_epoch: int
    loss_unit: str
    longest_row_tokens: int
    cut_rows: int
    cut_tokens: int
    steps: int
    steps_per_epoch: int
    batch_size: int
    micro_tokens: int
    device: str
    precision: str
    fast_path: bool
    fast_path_reason: str
    fast_path_loss_difference: float | None
    fast_path_gradient_difference: float | None
    weights_bytes: int
    training_state_bytes: int
    activation_bytes: int
    trial_bytes: int
    """By how much memory grew while the largest micro-batch went forward and backward."""
    free_bytes: int
    frozen_layers: int = 0
    frozen_states_kept: bool = False
    """Whether what they make of a document is kept for the next time it comes."""

    def summary(self) -> dict[str, Any]:
        """The lines that people see before step 1."""
        share = self.trained_parameters / self.parameters
        needed = max(
            self.training_state_bytes + self.activation_bytes, with_moments(self.trial_bytes, self.training_state_bytes)
        )
        lines = {
            "train": f"{self.trained_parameters:,} of {self.parameters:,} parameters ({share:.2%}), {self.precision} on {self.device}",
            "rows": f"{self.train_rows:,} train, {self.validation_rows:,} validation, {self.test_rows:,} test",
            "tokens": f"{self.tokens_per_epoch:,} an epoch, loss on {self.loss_units_per_epoch:,} {self.loss_unit}; the longest row has {self.longest_row_tokens:,}",
            "cut": f"{self.cut_rows:,} sources lose {self.cut_tokens:,} tokens; {self.left_out_rows:,} rows left out, their targets are too long",
            "steps": f"{self.steps:,} of {self.batch_size} examples, {self.steps_per_epoch:,} an epoch, at most {self.micro_tokens:,} tokens at once",
            "memory": f"about {needed / 2**30:.1f} GiB of {self.free_bytes / 2**30:.1f} GiB free",
        }
        if self.frozen_layers:
            kept = ", computed once for each document" if self.frozen_states_kept else ""
            lines["frozen"] = f"the {self.frozen_layers} lowest layers{kept}"
        if not self.fast_path:
            lines["path"] = f"one document at a time: {self.fast_path_reason}"
        return lines

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def state_bytes(pretrained: Pretrained) -> tuple[int, int]:
    """Bytes of the weights, and of gradients with Adam's two moments for the trained ones, all in float32."""
    weights = sum(weight.numel() * weight.element_size() for weight in pretrained.model.parameters())
    return weights, sum(3 * 4 * weight.numel() for _, weight in pretrained.trained)


def with_moments(trial_bytes: int, state_bytes: int) -> int:
    """Bytes that training takes beside the weights: what a trial took, which has the gradients in it, and Adam's two moments."""
    return int(MARGIN * trial_bytes) + state_bytes * 2 // 3


def token_bytes(pretrained: Pretrained, precision: torch.dtype, checkpointing: bool) -> int:
    """Estimated bytes of activations that one token of a micro-batch keeps until the backward pass."""
    config = pretrained.model.config
    per_layer = CHECKPOINTED_LAYER_BYTES if checkpointing else LAYER_BYTES
    width = 2 if precision == torch.float32 else 1
    layers = config.num_hidden_layers
    fixed = pretrained.frozen.count if pretrained.frozen else 0
    if pretrained.family is not Family.encoder_decoder:
        return max(1, layers - fixed) * config.hidden_size * per_layer * width
    # a token is one of the source's or one of the target's: the dearer of the two, since any mix may come
    decoder_layers = getattr(config, "num_decoder_layers", None) or getattr(config, "decoder_layers", layers)
    read = (layers - fixed) * per_layer + (0 if checkpointing else decoder_layers * READ_BYTES)
    written = decoder_layers * (per_layer + (0 if checkpointing else CROSS_ATTENTION_BYTES))
    return max(read, written) * config.hidden_size * width


def paying_tokens(per_token: int, trained_share: float, device: torch.device) -> int:
    """Return how many tokens of a pass pay off, where one of them keeps so many bytes without checkpointing.

    trained_share: of the model's weights.
    """
    if device.type != "cpu":
        return MICRO_TOKENS[device.type]
    least, small = (FULL_TOKENS, SMALL_PASS) if trained_share > 1 / 2 else (MICRO_TOKENS["cpu"], SMALL_ADAPTED_PASS)
    return max(least, min(MOST_TOKENS, small // per_token))


def plan_micro_tokens(wanted: int | None, per_token: int, state: int, free: int, longest: int, paying: int) -> int:
    """Return the tokens of one micro-batch: as set, or as many as pay off and fit.

    Raises DoesNotFit where not even the longest row fits, with the settings that would help.
    """
    room = SHARE * free - state
    if longest * per_token > room:
        raise DoesNotFit(
            f"training needs about {(state + longest * per_token) / 2**30:.1f} GiB with the longest row of {longest} tokens, "
            f"{free / 2**30:.1f} GiB are free. {SMALLER}"
        )
    if wanted is not None:
        return wanted
    return max(longest, min(paying, int(room / per_token)))

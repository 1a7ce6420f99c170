"""LoRA of an 8B Llama architecture on one GPU: llmft's training path, or TRL's SFTTrainer, on the same random rows.

usage: python -m scripts.gpu_lora llmft|trl|check [--rows 2] [--steps 8] [--layers 32] [--checkpointing]

Random weights in bf16, r=16 on all linear layers, rows of 4,096 tokens that all carry loss. Prints tokens a second and the share
of the GPU's bf16 peak, over the steps after the first three; `check` compares the paths' loss and gradients on a small model.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

LENGTH, RANK, PEAK = 4096, 16, 989e12  # H100 SXM: 989 TFLOP/s of dense bf16, by its data sheet
WARM = 3


def make_model(layers: int, **changed: Any) -> PreTrainedModel:
    """Return Llama 3's 8B architecture with random weights on the GPU."""
    size = {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32}
    size |= {"num_key_value_heads": 8, "max_position_embeddings": 8192, "num_hidden_layers": layers}
    config = LlamaConfig(**size | changed, rope_parameters={"rope_theta": 500000.0, "rope_type": "default"})
    torch.manual_seed(0)
    with torch.device("cuda"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


def flops_per_token(model: Any, length: int) -> float:
    """Of forward and backward: 2 x 2 for each frozen weight, 2 x 3 for each trained one, attention as causal, 3.5 x its forward."""
    frozen = sum(weight.numel() for weight in model.parameters() if not weight.requires_grad)
    frozen -= model.get_input_embeddings().weight.numel()
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    config = model.config
    attention = 4 * length / 2 * config.num_attention_heads * config.head_dim * config.num_hidden_layers
    return 4 * frozen + 6 * trained + 3.5 * attention


def report(name: str, model: PreTrainedModel, seconds: list[float], rows: int, losses: list[float]) -> None:
    """Print what was measured as a line of JSON."""
    taken = float(np.median(seconds[WARM:]))
    rate = rows * LENGTH / taken
    line = {
        "name": name,
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "rows": rows,
        "step_s": round(taken, 4),
    }
    line |= {"tokens_per_s": round(rate), "mfu": round(rate * flops_per_token(model, LENGTH) / PEAK, 3)}
    line |= {"peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1), "first_step_s": round(seconds[0], 1)}
    print(json.dumps(line | {"losses": [round(loss, 4) for loss in losses]}), flush=True)


def documents(rows: int, vocab_size: int) -> list[np.ndarray]:
    """Return random rows, the same for every tool."""
    generator = np.random.default_rng(0)
    return [generator.integers(10, vocab_size, LENGTH, dtype=np.int32) for _ in range(rows)]


def run_llmft(rows: int, steps: int, layers: int, checkpointing: bool, profiled: bool) -> None:
    """Train by llmft's path for decoders like Llama."""
    from llmft.config.schema import Adapter
    from llmft.data.batch import collate_decoder
    from llmft.data.encode import Encoded
    from llmft.models.adapter import add_adapter
    from llmft.models.attention import checkpoint_layers
    from llmft.models.family import Family
    from llmft.models.forward import Path as Way
    from llmft.models.forward import batch_loss
    from llmft.models.head import Head
    from llmft.models.load import Pretrained
    from llmft.training.optimizer import adamw, parameter_groups

    model = make_model(layers)
    pretrained = Pretrained(model, None, Family.decoder, Path(), Head.text, ())  # type: ignore[arg-type]
    add_adapter(pretrained, Adapter(r=RANK))
    if checkpointing:
        checkpoint_layers(model)
    model.train()
    optimizers = adamw(parameter_groups(pretrained.trained, 0.01), 1e-4, 0.01)
    mask = np.ones(LENGTH, np.bool_)
    rows_of_text = [Encoded(str(n), ids, mask, None, "", LENGTH - 1) for n, ids in enumerate(documents(rows, 128256))]
    batch = collate_decoder(rows_of_text).to("cuda")
    seconds: list[float] = []
    losses: list[float] = []

    def step() -> float:
        loss = batch_loss(model, batch, torch.bfloat16, Way.flat) / batch.units
        loss.backward()
        torch.nn.utils.clip_grad_norm_([weight for _, weight in pretrained.trained], 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        return loss.item()

    for _ in range(steps):
        began = time.perf_counter()
        losses.append(step())
        seconds.append(time.perf_counter() - began)
    if profiled:
        with torch.profiler.profile() as found:
            step()
        print(found.key_averages().table(sort_by="self_cuda_time_total", row_limit=30, max_name_column_width=70))
    report("llmft", model, seconds, rows, losses)


def run_trl(rows: int, steps: int, layers: int, checkpointing: bool) -> None:
    """Train by TRL's SFTTrainer."""
    import pyarrow as pa
    from datasets import Dataset
    from datasets.table import InMemoryTable
    from peft import LoraConfig
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    model = make_model(layers)
    seconds: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *given: Any, **options: Any) -> None:
            torch.cuda.synchronize()
            self.began = time.perf_counter()

        def on_step_end(self, *given: Any, **options: Any) -> None:
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - self.began)

    from tokenizers import Tokenizer, models

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "b": 1}, "a")), eos_token="b", pad_token="b"
    )
    table = pa.table({"input_ids": [ids.tolist() for ids in documents(rows, 128256)] * steps})
    data = Dataset(InMemoryTable(table), fingerprint="rows")  # named, since hashing it fails beside some versions of pyarrow
    config = SFTConfig(
        output_dir="/tmp/trl", per_device_train_batch_size=rows, max_steps=steps, bf16=True, gradient_checkpointing=checkpointing,
        max_length=LENGTH, learning_rate=1e-4, logging_steps=1, save_strategy="no", report_to=[], lr_scheduler_type="constant",
        weight_decay=0.01, dataset_kwargs={"skip_prepare_dataset": True}, remove_unused_columns=False,
    )  # fmt: skip
    lora = LoraConfig(r=RANK, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = SFTTrainer(model, config, train_dataset=data, processing_class=tokenizer, peft_config=lora, callbacks=[Clock()])
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    report("trl", trainer.model, seconds, rows, losses)


def check() -> None:
    """Print how far loss and gradients of the flat path are from transformers' own, on a small model of the same kind."""
    from llmft.data.batch import collate_decoder
    from llmft.data.encode import Encoded
    from llmft.models.forward import Path as Way
    from llmft.models.forward import batch_loss
    from llmft.models.path_check import loss_and_gradient_differences

    small = {
        "vocab_size": 1024,
        "hidden_size": 512,
        "intermediate_size": 1024,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
    }
    model = make_model(4, **small)
    rows = [ids[:length] % 1000 for ids, length in zip(documents(5, 1000), (700, 33, 128, 5, 257), strict=True)]
    mask = [np.arange(len(ids)) >= len(ids) // 2 for ids in rows]
    found = [
        Encoded(str(n), ids, own, None, "", int(own[1:].sum())) for n, (ids, own) in enumerate(zip(rows, mask, strict=True))
    ]
    batch = collate_decoder(found).to("cuda")
    weights = list(model.parameters())
    for way in (Way.flat, Way.ragged):
        differences = loss_and_gradient_differences(
            model,
            lambda: batch_loss(model, batch, torch.bfloat16, Way.plain),
            partial(batch_loss, model, batch, torch.bfloat16, way),
            weights,
        )
        print(json.dumps({"check": way.value, "loss": differences[0], "gradients": differences[1]}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", choices=["llmft", "trl", "check"])
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--profile", action="store_true", help="print where the time of one more step of llmft's goes")
    given = parser.parse_args()
    if given.tool == "check":
        check()
        return
    if given.tool == "trl":
        run_trl(given.rows, given.steps, given.layers, given.checkpointing)
    else:
        run_llmft(given.rows, given.steps, given.layers, given.checkpointing, given.profile)


if __name__ == "__main__":
    main()

"""transformers' Trainer, and Seq2SeqTrainer for encoder-decoders, on the rows of a job: python -m scripts.bench.peers.trainer JOB."""

from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainingArguments,
)

from scripts.bench.peers.job import Counting, Steps, start

LOADERS: dict[str, Any] = {
    "decoder": AutoModelForCausalLM,
    "pair": AutoModelForSeq2SeqLM,
    "label": AutoModelForSequenceClassification,
}


def mean_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
    """Return a micro-batch's part of the mean loss of its step.

    By themselves encoders and T5 return the micro-batch's own mean, and Trainer adds those up: a step of 8 micro-batches would have
    8 times the gradient.
    """
    return cross_entropy(outputs.logits.flatten(0, -2), labels.flatten(), reduction="sum") / num_items_in_batch


def main() -> None:
    """Train over the rows once."""
    job = start()
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    model = LOADERS[job.kind].from_pretrained(job.model, dtype=job.weights)
    if adapter := job.lora():
        from peft import get_peft_model

        model = get_peft_model(model, adapter)
    if job.kind == "label":
        collate: Any = DataCollatorWithPadding(tokenizer)
    else:
        collate = DataCollatorForSeq2Seq(tokenizer, model=model if job.kind == "pair" else None)
    counting = Counting(collate)
    kind, arguments = (Seq2SeqTrainer, Seq2SeqTrainingArguments) if job.kind == "pair" else (Trainer, TrainingArguments)
    trainer = kind(
        model=model,
        args=arguments(**job.options()),
        train_dataset=job.rows(),
        data_collator=counting,
        compute_loss_func=None if job.kind == "decoder" else mean_loss,
        callbacks=[Steps(job, counting)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()


if __name__ == "__main__":
    main()

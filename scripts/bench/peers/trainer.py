"""transformers' Trainer, and Seq2SeqTrainer for encoder-decoders, on the rows of a job: python -m scripts.bench.peers.trainer JOB."""

from typing import Any

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
        callbacks=[Steps(job, counting)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()


if __name__ == "__main__":
    main()

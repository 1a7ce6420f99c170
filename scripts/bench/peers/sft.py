"""TRL's SFTTrainer on the rows of a job, which are tokens already: python -m scripts.bench.peers.sft JOB."""

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
from trl import SFTConfig, SFTTrainer

from scripts.bench.peers.job import Counting, Steps, start


def main() -> None:
    """Train over the rows once."""
    job = start()
    options = job.options() | {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}
    if job.padding_free:
        options["padding_free"] = True
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(job.model, dtype=job.weights),
        processing_class=AutoTokenizer.from_pretrained(job.model),
        train_dataset=Dataset.from_list(job.rows()),
        peft_config=job.lora(),
        args=SFTConfig(**options),
    )
    counting = Counting(trainer.data_collator)
    trainer.data_collator = counting
    trainer.add_callback(Steps(job, counting))
    trainer.remove_callback(PrinterCallback)
    trainer.train()


if __name__ == "__main__":
    main()

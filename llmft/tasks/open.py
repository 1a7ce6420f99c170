"""From settings to a task with its model, ready to train, score or predict."""

from pathlib import Path

import torch

from llmft.config.schema import AdapterKind, Dtype, EvalRun, PredictRun, TrainRun
from llmft.errors import ConfigError
from llmft.hardware.determinism import prepare
from llmft.hardware.device import choose_device
from llmft.hardware.precision import choose_precision
from llmft.models.adapter import add_adapter, load_adapter
from llmft.models.attention import checkpoint_layers
from llmft.models.family import Family
from llmft.models.load import Pretrained, load_family, load_pretrained
from llmft.models.locate import locate
from llmft.runs.provenance import hash_file
from llmft.tasks.bound import BoundTask, bind_task
from llmft.tasks.text_to_text import TextToText

DTYPES = {Dtype.float32: torch.float32, Dtype.bfloat16: torch.bfloat16}


def open_training(run: TrainRun, bound: BoundTask, folder: Path) -> TextToText:
    """Load the model in `folder` for training, with a fresh adapter if one is asked for."""
    check_family(folder, run.task.formulation.value)
    prepare(run.hardware, run.seed)
    device = choose_device(run.hardware)
    precision = choose_precision(run.hardware, device)
    lora = run.adapter.name is AdapterKind.lora
    # what is trained stays float32; what is frozen needs no more digits than the arithmetic reads
    pretrained = load_pretrained(folder, DTYPES.get(run.model.dtype, precision if lora else torch.float32), device)
    if lora:
        add_adapter(pretrained, run.adapter)
    if run.model.gradient_checkpointing:
        checkpoint_layers(pretrained.model)
    pretrained.model.train()
    return TextToText(run.task, bound, pretrained, run.generation, precision, run.seed)


def open_task(run: EvalRun | PredictRun, trained: Path | None) -> TextToText:
    """Load what a run directory has trained, or a plain model, for scoring and prediction."""
    bound = bind_task(run.task, run.plugins)
    prepare(run.hardware, run.seed)
    device = choose_device(run.hardware)
    precision = choose_precision(run.hardware, device)
    if trained is None:
        folder = locate(run.model)
        check_family(folder, run.task.formulation.value)
        pretrained = load_pretrained(folder, DTYPES.get(run.model.dtype, torch.float32), device)
    else:
        pretrained = load_trained(run, trained, precision, device)
    pretrained.model.eval()
    return TextToText(run.task, bound, pretrained, run.generation, precision, run.seed)


def load_trained(run: EvalRun | PredictRun, trained: Path, precision: torch.dtype, device: torch.device) -> Pretrained:
    """Load the final model of a run directory, in the number formats it was trained in."""
    folder = trained / "model"
    if not folder.is_dir():
        raise ConfigError(
            f"run={trained}: the run has no model yet; let it finish (llmft train goes on with it), or name another one"
        )
    if not (folder / "adapter_config.json").is_file():
        return load_pretrained(folder, DTYPES.get(run.model.dtype, torch.float32), device)
    pretrained = load_pretrained(locate(run.model), DTYPES.get(run.model.dtype, precision), device)
    load_adapter(pretrained, folder)
    return pretrained


def weights_mark(trained: Path | None) -> str | None:
    """Return a hash that tells a run's final weights from those of another run in the same place; None without a run."""
    manifest = trained / "model" / "manifest.json" if trained else None
    return hash_file(manifest) if manifest and manifest.is_file() else None


def check_family(folder: Path, formulation: str) -> None:
    """Refuse a family of models that this formulation cannot train, before its weights are loaded."""
    family = load_family(folder)
    if family is not Family.decoder:
        raise ConfigError(
            f"model.name: {folder.name} is an {family.value}; {formulation} trains decoders so far "
            "(model=smollm2_135m, gpt2, qwen3_0_6b, llama3_2_1b, or any other)"
        )

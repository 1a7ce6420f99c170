"""The trial before step 1, remembered: the same documents on the same machine take the same memory each time."""

import platform
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import transformers

from llmft.config.dump import to_values
from llmft.config.schema import TrainRun
from llmft.data.encode import cache_key
from llmft.hardware.limits import cpu_model
from llmft.models.locate import content_hash
from llmft.models.path_check import PathCheck
from llmft.runs.provenance import code_mark
from llmft.runs.remembered import recall, remember
from llmft.tasks.encodings import Encodings
from llmft.tasks.formulation import Learner
from llmft.training.memory import with_moments
from llmft.training.trial import fitting


def fitting_as_before(
    run: TrainRun,
    learner: Learner,
    path: PathCheck,
    train: Encodings,
    places: np.ndarray,
    planned: int,
    state_bytes: int,
    free: int,
) -> tuple[int, int]:
    """Return what `fitting` does for the documents at some places; without a trial where one went well for the same before.

    What it took then has to be free now. A trial that ended with less than planned is not remembered: it may go better.
    """
    device = learner.pretrained.model.device
    key = cache_key(**depends_on(run, learner, path, train, planned))
    taken = recall("trials", key)
    if isinstance(taken, int) and with_moments(taken, state_bytes) <= free:
        return planned, taken
    micro_tokens, taken = fitting(
        learner.loss,
        learner.cut,
        [weight for _, weight in learner.pretrained.trained],
        lambda some: train.documents(places[some].tolist()),
        train.lengths[places],
        run.training.batch_size,
        planned,
        state_bytes,
        free,
        device,
    )
    if micro_tokens == planned:
        remember("trials", key, taken)
    return micro_tokens, taken


def depends_on(run: TrainRun, learner: Learner, path: PathCheck, train: Encodings, planned: int) -> dict[str, Any]:
    """Return all that decides how much memory a trial takes, as JSON values."""
    device = learner.pretrained.model.device
    return {
        "documents": train.cache.folder.name,
        "model": content_hash(learner.pretrained.folder),
        "learner": type(learner).__name__,
        "path": [path.fast, path.path.name],
        "precision": str(learner.precision),
        "weights": sorted({str(weight.dtype) for weight in learner.pretrained.model.parameters()}),
        "trained": len(learner.pretrained.trained),
        "settings": to_values([run.adapter, run.model.gradient_checkpointing, run.task.labels]),
        "batch": [run.training.batch_size, planned],
        "device": [torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model(), torch.get_num_threads()],
        "system": platform.platform(),
        "code": [code_mark(), torch.__version__, transformers.__version__, version("peft")],
    }

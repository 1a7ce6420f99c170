"""The training loop: the seven steps of fine-tuning, 2 to 7 here, 1 in `train`.

1 initialise from pretrained weights, 2 sample a batch, 3 forward through self-attention, 4 decode under teacher forcing,
5 loss against the reference, 6 update, 7 repeat until steps, epochs or patience say so.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from llmft.config.every import parse_every
from llmft.config.schema import TrainRun
from llmft.data.order import Order
from llmft.errors import ConfigError, Stopped
from llmft.hardware.determinism import isolated, rng_state, set_rng_state
from llmft.hardware.memory import current_bytes
from llmft.reports.console import Progress
from llmft.reports.record import Record
from llmft.runs import signals
from llmft.runs.directory import RunDirectory
from llmft.tasks.formulation import Learner
from llmft.tasks.prepare import Corpus
from llmft.tasks.scoring import Scored, score_examples
from llmft.training import checkpoint
from llmft.training.checkpoint import Position
from llmft.training.guards import check_finite, improved
from llmft.training.memory import Plan
from llmft.training.optimizer import set_lr
from llmft.training.pace import due, warmup_steps
from llmft.training.schedule import Schedule, lr_factor

VALIDATION_WINDOW = 64  # documents whose micro-batches are cut together


@dataclass
class Work:
    """A training in progress: what was set up once, and `position`, which moves."""

    run: TrainRun
    directory: RunDirectory
    learner: Learner
    corpus: Corpus
    order: Order
    plan: Plan
    optimizers: list[Optimizer]
    schedule: Schedule
    record: Record
    position: Position

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.directory.path / "checkpoints"


def fit(work: Work) -> None:
    """Train until steps, epochs or patience end it. A signal saves the last whole step and goes on as Stopped."""
    with signals.deferred(), Progress(work.plan.steps, work.position.step) as progress:
        random = rng_state()
        try:
            while True:
                look_up(work, progress)
                if work.position.ended:  # 7 repeat until convergence
                    return
                random = rng_state()
                take_step(work, progress)
                random = rng_state()
        except Stopped:
            set_rng_state(*random)  # a step that was not finished has drawn no numbers
            save(work)
            raise
        finally:
            work.record.close()


def take_step(work: Work, progress: Progress) -> None:
    """One optimizer step; micro-batches change how much memory it takes, not what it computes."""
    run, position, learner = work.run, work.position, work.learner
    began = time.monotonic()
    documents = work.corpus.train.documents(work.order.rows_of_step(position.step))  # 2 sample a batch
    units = sum(document.units for document in documents)
    loss = 0.0
    for micro_batch in learner.cut(documents, work.plan.micro_tokens):
        signals.check()
        part = (
            learner.loss(micro_batch) / units
        )  # 3 self-attention, 4 decode under teacher forcing, 5 loss against the reference
        part.backward()
        loss += part.item()
    norm = float(
        clip_grad_norm_([weight for _, weight in learner.pretrained.trained], run.optimizer.max_grad_norm or float("inf"))
    )
    check_finite(position.step + 1, loss, norm, [document.id for document in documents], newest_name(work))
    warmup = warmup_steps(run.schedule, work.plan.steps)
    factor = lr_factor(work.schedule, position.step, work.plan.steps, warmup)
    set_lr(work.optimizers, factor)
    for optimizer in work.optimizers:  # 6 update
        optimizer.step()
        optimizer.zero_grad()
    seconds, tokens = time.monotonic() - began, sum(map(len, documents))
    position.step += 1
    position.tokens += tokens
    position.loss_units += units
    position.examples += len(documents)
    position.seconds += seconds
    position.last_loss = loss
    memory, lr = current_bytes(learner.pretrained.model.device), factor * run.optimizer.lr
    epoch = position.step / work.order.steps_per_epoch
    work.record.step(position.step, loss, lr, norm, tokens, seconds, memory, epoch)
    progress.step(position.step, loss=loss, lr=lr, tokens_per_s=tokens / seconds, memory_bytes=memory)


def look_up(work: Work, progress: Progress) -> None:
    """Between steps: validate, end and save where that is due."""
    training, position = work.run.training, work.position
    per_epoch = work.order.steps_per_epoch
    over = position.step >= work.plan.steps
    eval_every = parse_every(training.eval_every)
    wanted = eval_every is not None and (position.step == 0 or over or due(position.step, eval_every, per_epoch))
    if work.corpus.validation and wanted and position.validated != position.step:
        validate(work, progress)
    if over or (training.patience and position.worse >= training.patience):
        position.ended = "steps" if over else "patience"
    if position.ended or due(position.step, parse_every(training.save_every), per_epoch):
        save(work)


def validate(work: Work, progress: Progress) -> None:
    """Measure the validation rows; keep the checkpoint if it is the best so far. Step 0 is recorded, and is no candidate."""
    run, position = work.run, work.position
    with isolated(run.seed):
        values = {"loss": validation_loss(work)}
        higher_is_better = False
        if run.training.metric != "loss" or run.training.eval_generate:
            scored = score_validation(work)
            values |= {name: score.value for name, score in scored.scores.items()}
            if run.training.metric not in values:
                raise ConfigError(
                    f"training.metric={run.training.metric}: no score of that name; the validation gave {', '.join(values)}. "
                    "Correct the name or add it to task.metrics."
                )
            if run.training.metric != "loss":
                higher_is_better = scored.higher_is_better(run.training.metric)
    work.record.validation(position.step, values)
    progress.note(f"step {position.step}: validation " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
    position.validated = position.step
    position.validation_loss = values["loss"]
    if position.step == 0:
        position.validation_loss_before = values["loss"]
    elif improved(values[run.training.metric], position.best, higher_is_better):
        position.best, position.best_step, position.worse = values[run.training.metric], position.step, 0
        checkpoint.mark_best(work.checkpoints, save(work))
    else:
        position.worse += 1


@torch.no_grad()
def validation_loss(work: Work) -> float:
    """Mean loss per token, window or text over the validation rows."""
    assert work.corpus.validation
    model, documents = work.learner.pretrained.model, work.corpus.validation
    total, units = 0.0, 0
    model.eval()
    try:
        for start in range(0, len(documents.rows), VALIDATION_WINDOW):
            window = documents.documents(list(range(start, min(start + VALIDATION_WINDOW, len(documents.rows)))))
            for micro_batch in work.learner.cut(window, work.plan.micro_tokens):
                signals.check()
                total += work.learner.loss(micro_batch).item()
            units += sum(document.units for document in window)
    finally:
        model.train()
    return total / units


def score_validation(work: Work) -> Scored:
    """Generate and score the validation rows; the predictions of each validation are kept."""
    name = f"validation-step-{work.position.step:06d}.jsonl"
    path = work.directory.path / "predictions" / name
    return score_examples(
        work.learner, work.corpus.validation_examples, path, f"scoring validation at step {work.position.step}"
    )


def save(work: Work) -> Path:
    """Write a checkpoint of the position reached, then drop those no longer kept."""
    folder = checkpoint.save(work.checkpoints, work.learner.pretrained, work.optimizers, work.position)
    work.directory.update(work.position.step)
    checkpoint.rotate(work.checkpoints, work.run.training.keep)
    return folder


def newest_name(work: Work) -> str | None:
    """Name of the newest checkpoint, for messages."""
    return next((str(folder) for folder in checkpoint.steps_on_disk(work.checkpoints)), None)

"""The training loop: the seven steps of fine-tuning, 2 to 7 here, 1 in `train`.

1 initialise from pretrained weights, 2 sample a batch, 3 forward through self-attention, 4 decode under teacher forcing,
5 loss against the reference, 6 update, 7 repeat until steps, epochs or patience say so.
"""

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from llmft.config.every import parse_every
from llmft.config.schema import TrainRun
from llmft.data.encode import Encoded
from llmft.data.order import Order
from llmft.errors import ConfigError, DoesNotFit, Stopped
from llmft.hardware.determinism import isolated, rng_state, set_rng_state
from llmft.hardware.memory import current_bytes, is_out_of_memory, release
from llmft.reports.console import Progress, say
from llmft.reports.record import Record
from llmft.runs import signals
from llmft.runs.directory import RunDirectory
from llmft.tasks.formulation import Learner
from llmft.tasks.prepare import Corpus
from llmft.tasks.scoring import Scored, score_examples
from llmft.training import shelf
from llmft.training.checkpoint import Position
from llmft.training.guards import (
    SPIKE_WINDOW,
    Scene,
    check_finite,
    check_spikes,
    check_updated,
    improved,
    is_spike,
)
from llmft.training.memory import SMALLER, Plan
from llmft.training.optimizer import optimizer_state, set_lr
from llmft.training.pace import due, warmup_steps
from llmft.training.saver import Saver
from llmft.training.schedule import Schedule, lr_factor
from llmft.training.trial import halved

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
    saver: Saver

    @property
    def micro_tokens(self) -> int:
        """Tokens of one micro-batch, at most: as planned, or fewer since memory ran out."""
        return min(self.plan.micro_tokens, self.position.micro_tokens or self.plan.micro_tokens)


def fit(work: Work) -> None:
    """Train until steps, epochs or patience end it. A signal saves the last whole step and goes on as Stopped."""
    with signals.deferred(), Progress(work.plan.steps, work.position.step) as progress:
        random = rng_state()
        try:
            while True:
                look_up(work, progress)
                if work.position.ended:  # 7 repeat until convergence
                    if skipped := work.position.skipped:
                        progress.note(f"steps skipped, their gradients being spikes: {skipped} (metrics.jsonl tells which)")
                    return
                random = rng_state()
                take_step(work, progress)
                random = rng_state()
        except Stopped:
            set_rng_state(*random)  # a step that was not finished has drawn no numbers
            save(work)
            raise
        finally:
            try:
                settle(work)
            finally:
                work.record.close()


def take_step(work: Work, progress: Progress) -> None:
    """One optimizer step; micro-batches change how much memory it takes, not what it computes."""
    run, position, learner = work.run, work.position, work.learner
    began = time.monotonic()
    trained = learner.pretrained.trained
    documents = work.corpus.train.documents(work.order.rows_of_step(position.step))  # 2 sample a batch
    units = sum(document.units for document in documents)
    loss = take_gradients(work, documents, units, progress)
    norm = float(clip_grad_norm_([weight for _, weight in trained], run.optimizer.max_grad_norm or float("inf")))
    scene = scene_of(work, position.step + 1)
    check_finite(scene, loss, norm, [*trained, *remembered(work)])
    warmup = warmup_steps(run.schedule, work.plan.steps)
    factor = lr_factor(work.schedule, position.step, work.plan.steps, warmup)
    set_lr(work.optimizers, factor)
    skipped = skips(work, scene, norm)
    for optimizer in work.optimizers:  # 6 update
        if not skipped:
            optimizer.step()
        optimizer.zero_grad()
    check_updated(scene, trained)
    seconds, tokens = time.monotonic() - began, sum(map(len, documents))
    position.step += 1
    position.tokens += tokens
    position.loss_units += units
    position.examples += len(documents)
    position.seconds += seconds
    position.last_loss = loss
    memory, lr = current_bytes(learner.pretrained.model.device), factor * run.optimizer.lr
    epoch = position.step / work.order.steps_per_epoch
    work.record.step(position.step, loss, lr, norm, tokens, seconds, memory, epoch, skipped)
    progress.step(position.step, loss=loss, lr=lr, tokens_per_s=tokens / seconds, memory_bytes=memory)


def take_gradients(work: Work, documents: list[Encoded], units: int, progress: Progress) -> float:
    """Compute a step's gradients and return its loss. Where memory runs out, all of it again in smaller micro-batches.

    Raises DoesNotFit where one document alone is too large.
    """
    learner, step = work.learner, work.position.step + 1
    random = rng_state()
    while True:
        loss, micro_batch = 0.0, documents
        try:
            for micro_batch in learner.cut(documents, work.micro_tokens):
                signals.check()
                loss += learn(learner, micro_batch, units)
            return loss
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            smaller = halved(learner.cut, micro_batch, work.micro_tokens)
            if smaller is None:
                alone = micro_batch[0]
                raise DoesNotFit(
                    f"step {step}: out of memory on the row {alone.id} ({alone.where}) of {len(alone)} tokens alone. {SMALLER}"
                ) from error
        for optimizer in work.optimizers:
            optimizer.zero_grad()
        release(learner.pretrained.model.device)
        set_rng_state(*random)
        work.position.micro_tokens = smaller
        progress.note(f"step {step}: out of memory; from here on {smaller:,} tokens at once, which does not change the result")


def learn(learner: Learner, micro_batch: list[Encoded], units: int) -> float:
    """Add a micro-batch to the gradients; return its part of the step's loss."""
    part = learner.loss(micro_batch) / units  # 3 self-attention, 4 decode under teacher forcing, 5 loss against the reference
    part.backward()
    return part.item()


def skips(work: Work, scene: Scene, norm: float) -> bool:
    """Tell whether the step's gradient is a spike, and keep count. Raises Diverged after too many in a row."""
    position, factor = work.position, work.run.training.skip_spikes
    if not is_spike(norm, position.norms, factor):
        position.skipped_in_row = 0
        if factor is not None:
            position.norms = [*position.norms, norm][-SPIKE_WINDOW:]
        return False
    position.skipped += 1
    position.skipped_in_row += 1
    check_spikes(scene, norm, position.norms, position.skipped_in_row)
    return True


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
    if not math.isfinite(values["loss"]):
        progress.note(f"step {position.step}: the validation loss is not finite; these weights cannot be the best ones")
    position.validated = position.step
    position.validation_loss = values["loss"]
    if position.step == 0:
        position.validation_loss_before = values["loss"]
    elif improved(values[run.training.metric], position.best, higher_is_better):
        position.best, position.best_step, position.worse = values[run.training.metric], position.step, 0
        save(work)
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
            for micro_batch in work.learner.cut(window, work.micro_tokens):
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


def save(work: Work) -> None:
    """Write a checkpoint of the position reached, mark the best one, and drop those no longer kept."""
    check_updated(scene_of(work, work.position.step), [*work.learner.pretrained.trained, *remembered(work)])
    work.record.journal.sync()  # the steps before it must not be missing after a power cut
    for note in work.saver.save(work.learner.pretrained, work.optimizers, work.position):
        say(note)
    work.directory.update(work.position.step)


def settle(work: Work) -> None:
    """Wait for a checkpoint that is still being written."""
    for note in work.saver.wait():
        say(note)


def remembered(work: Work) -> list[tuple[str, Tensor]]:
    """What the optimizers remember of each weight, by name."""
    names: dict[Tensor, str] = {weight: name for name, weight in work.learner.pretrained.trained}
    return list(optimizer_state(work.optimizers, names)[0].items())


def scene_of(work: Work, step: int) -> Scene:
    """Return what a message on `step` names, looked up where one is made."""
    rows = work.order.rows_of_step(step - 1) if step else []
    return Scene(step, lambda: [each.id for each in work.corpus.train.documents(rows)], lambda: newest_name(work))


def newest_name(work: Work) -> str | None:
    """Name of the newest checkpoint, for messages."""
    settle(work)
    return next((str(folder) for folder in shelf.steps_on_disk(work.saver.checkpoints)), None)

"""One optimizer step, 2 to 6 of the seven of fine-tuning: a batch, its gradients, and the update that they are good enough for."""

import time
from dataclasses import dataclass

from torch import Tensor
from torch.optim import Optimizer

from llmft.config.schema import TrainRun
from llmft.data.encode import Encoded
from llmft.data.order import Order
from llmft.errors import DoesNotFit
from llmft.hardware.determinism import rng_state, set_rng_state
from llmft.hardware.gradients import clear_gradients
from llmft.hardware.memory import current_bytes, is_out_of_memory, release
from llmft.reports.console import Progress, say
from llmft.reports.record import Record
from llmft.runs import signals
from llmft.runs.directory import RunDirectory
from llmft.tasks.formulation import Learner
from llmft.tasks.prepare import Corpus
from llmft.training import shelf
from llmft.training.checkpoint import Position
from llmft.training.guards import SPIKE_WINDOW, Scene, check_finite, check_spikes, is_spike
from llmft.training.memory import SMALLER, Plan
from llmft.training.optimizer import gradient_norm, optimizer_state, set_lr, update
from llmft.training.pace import warmup_steps
from llmft.training.saver import Saver
from llmft.training.schedule import Schedule, lr_factor
from llmft.training.trial import halved


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


def take_step(work: Work, progress: Progress) -> None:
    """One optimizer step; micro-batches change how much memory it takes, not what it computes."""
    run, position, learner = work.run, work.position, work.learner
    began = time.monotonic()
    trained = learner.pretrained.trained
    documents = work.corpus.train.documents(work.order.rows_of_step(position.step))  # 2 sample a batch
    units = sum(document.units for document in documents)
    assert units, "rows without loss were left out when they were encoded"
    loss = take_gradients(work, documents, units, progress)
    norm = gradient_norm(weight for _, weight in trained)
    scene = scene_of(work, position.step + 1)
    check_finite(scene, loss, norm, lambda: [*trained, *remembered(work)])
    warmup = warmup_steps(run.schedule, work.plan.steps)
    factor = lr_factor(work.schedule, position.step, work.plan.steps, warmup)
    set_lr(work.optimizers, factor)
    skipped = skips(work, scene, norm)
    if not skipped:
        update(work.optimizers, norm, run.optimizer.max_grad_norm)  # 6 update
    clear_gradients(weight for _, weight in trained)
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
        clear_gradients(weight for _, weight in learner.pretrained.trained)
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


def settle(work: Work) -> None:
    """Wait for a checkpoint that is still being written."""
    for note in work.saver.wait():
        say(note)

"""The training loop: the seven steps of fine-tuning, 7 here, 2 to 6 in `step`, 1 in `train`.

1 initialise from pretrained weights, 2 sample a batch, 3 forward through self-attention, 4 decode under teacher forcing,
5 loss against the reference, 6 update, 7 repeat until steps, epochs or patience say so.
"""

import math

import torch

from llmft.config.every import parse_every
from llmft.errors import ConfigError, Stopped
from llmft.hardware import heap
from llmft.hardware.determinism import isolated, rng_state, set_rng_state
from llmft.reports.console import Progress, say
from llmft.runs import signals
from llmft.step import Work, remembered, scene_of, settle, take_step
from llmft.tasks.scoring import Scored, score_examples
from llmft.training.guards import check_updated, improved
from llmft.training.memory import with_moments
from llmft.training.pace import due

VALIDATION_WINDOW = 64  # documents whose micro-batches are cut together


def fit(work: Work) -> None:
    """Train until steps, epochs or patience end it. A signal saves the last whole step and goes on as Stopped."""
    heap.settle(with_moments(work.plan.trial_bytes, work.plan.training_state_bytes))
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

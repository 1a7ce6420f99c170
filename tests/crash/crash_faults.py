"""What the laboratory does to a training from inside: numbers that are not finite, and memory that is refused.

A command is given a function that its forked process calls before it begins.
"""

import json
import resource
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import crash_lab


def start(
    before: Callable[[], None], words: Sequence[str], folder: Path, env: Mapping[str, str] | None = None
) -> crash_lab.Command:
    """Start `llmft WORDS` as crash_lab does, in a process that calls `before` first."""
    log = folder / "command.log"
    process = crash_lab.CONTEXT.Process(target=_prepared, args=(before, list(words), str(folder), dict(env or {}), str(log)))
    process.start()
    return crash_lab.Command(process, log)


def run(before: Callable[[], None], words: Sequence[str], folder: Path) -> tuple[int, str]:
    """Run `llmft WORDS` to its end; return its exit code and what it wrote."""
    command = start(before, words, folder)
    return command.wait(), command.said()


def _prepared(before: Callable[[], None], words: list[str], folder: str, env: dict[str, str], log: str) -> None:
    before()
    crash_lab._command(words, folder, env, log)


@dataclass(frozen=True)
class Fault:
    """One bad number: `value` in the loss, a gradient, a weight, a frozen weight or the optimizer's state, at `step` (from 1) and
    the `micro_batch` of it (from 0). `lot`, of 0 to 1, decides on the tensor and the place in it."""

    kind: str
    value: float
    step: int
    micro_batch: int
    lot: float


def inject(fault: Fault, report: str) -> None:
    """Make the training of this process suffer a fault.

    Where it then ends in Diverged, `report`.safetensors holds the trained weights as they were at that moment, and `report`.json
    the fault, with the name and place of a weight that was changed.
    """
    import torch
    from safetensors.torch import save_file

    from llmft import fit
    from llmft import step as one_step
    from llmft.errors import Diverged

    take_step, learn = fit.take_step, one_step.learn
    now = {"step": 0, "micro_batch": 0}
    done: dict[str, Any] = asdict(fault)
    works: list[fit.Work] = []

    def place_in(tensors: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
        """One number of one of the tensors, and note which."""
        names = sorted(name for name, tensor in tensors.items() if tensor.numel() > 1)
        name = names[int(fault.lot * len(names))]
        done["name"], done["place"] = name, int(fault.lot * tensors[name].numel())
        return tensors[name], done["place"]

    def counted_step(work: fit.Work, progress: fit.Progress) -> None:
        now["step"], now["micro_batch"] = work.position.step + 1, 0
        works[:] = [work]
        try:
            take_step(work, progress)
        except Diverged:
            trained = {name: weight.detach().contiguous() for name, weight in work.learner.pretrained.trained}
            save_file(trained, f"{report}.safetensors")
            Path(f"{report}.json").write_text(json.dumps(done))
            raise

    def faulty_learn(learner: Any, micro_batch: Any, units: int) -> float:
        due = (now["step"], now["micro_batch"]) == (fault.step, fault.micro_batch)
        now["micro_batch"] += 1
        if not due:
            return learn(learner, micro_batch, units)
        trained = dict(learner.pretrained.trained)
        if fault.kind == "loss":
            loss = learner.loss
            learner.loss = lambda documents: loss(documents) + fault.value
            try:
                return learn(learner, micro_batch, units)
            finally:
                learner.loss = loss
        if fault.kind == "gradient":
            weight, place = place_in(trained)

            def spoil(gradient: torch.Tensor) -> torch.Tensor:
                gradient = gradient.clone(memory_format=torch.contiguous_format)
                gradient.view(-1)[place] = fault.value
                return gradient

            hook = weight.register_hook(spoil)
            try:
                return learn(learner, micro_batch, units)
            finally:
                hook.remove()
        frozen = {name: each for name, each in learner.pretrained.model.named_parameters() if not each.requires_grad}
        linear = {
            name: each for name, each in frozen.items() if each.ndim == 2 and "embed" not in name and "shared" not in name
        }
        state = dict(one_step.remembered(works[0]))
        weight, place = place_in({"weight": trained, "frozen": linear, "optimizer": state}[fault.kind])
        with torch.no_grad():
            weight.view(-1)[place] = fault.value
        return learn(learner, micro_batch, units)

    fit.take_step, one_step.learn = counted_step, faulty_learn


def refuse_memory(step: int, micro_batch: int, times: int = 1) -> None:
    """Let this process's training run out of memory at a micro-batch (from 0) of `step` (from 1), as a GPU says it.

    times: how often in a row, each time at that micro-batch of the repeated step, or a later one that is not a single document.
    """
    import torch

    from llmft import fit
    from llmft import step as one_step

    take_step, learn = fit.take_step, one_step.learn
    now = {"step": 0, "micro_batch": 0, "refused": 0}

    def counted_step(work: fit.Work, progress: fit.Progress) -> None:
        now["step"], now["micro_batch"] = work.position.step + 1, 0
        take_step(work, progress)

    def refusing(learner: Any, documents: Any, units: int) -> float:
        at, now["micro_batch"] = now["micro_batch"], now["micro_batch"] + 1
        loss = learn(learner, documents, units)  # gradients and chance have moved by then
        if now["step"] == step and now["refused"] < times and at >= micro_batch and len(documents) > 1:
            now["refused"] += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 79.15 GiB in total.")
        return loss

    fit.take_step, one_step.learn = counted_step, refusing


def limit_memory(room: int, phase: str) -> None:
    """Let this process have at most `room` more bytes of address space (ulimit -v) from a phase on: a function of llmft.train."""
    from llmft import train

    function = getattr(train, phase)

    def limited(*arguments: Any) -> Any:
        size = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmSize:"))
        resource.setrlimit(resource.RLIMIT_AS, (int(size.split()[1]) * 1024 + room, resource.RLIM_INFINITY))
        return function(*arguments)

    setattr(train, phase, limited)


def spoil_validation(step: int) -> None:
    """Let the validation after `step` give not-a-number."""
    from llmft import fit

    validation_loss = fit.validation_loss
    fit.validation_loss = lambda work: validation_loss(work) * (float("nan") if work.position.step == step else 1.0)

"""Too little memory: a training goes on in smaller micro-batches to the same result, or says what would make it fit."""

import json
import random
from functools import partial
from pathlib import Path

import crash_faults
import crash_lab
import crash_runs
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

SEED = 60
MIB = 1 << 20
WIDE = 32768
"""Numbers in the middle of each of two feed-forward layers: more than half a MiB a token that the backward pass needs, which shows
beside what else a process does with memory."""
ROWS = 16


@pytest.fixture(scope="module")
def wide(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose activations are large and whose weights are small."""
    folder = tmp_path_factory.mktemp("wide") / "llama"
    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(tiny / "llama")
    config = LlamaConfig.from_pretrained(tiny / "llama", intermediate_size=WIDE)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def training(model: Path, folder: Path, *settings: str) -> list[str]:
    """Words of a training of two steps of four long rows."""
    path = folder / "rows.jsonl"
    rows = [{"text": f"{number} " + "red green " * 15, "answer": f"blue {number}"} for number in range(ROWS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [
        *("train", "task=summarization", f"model.name={model}", f"task.data.train={path}", "task.data.holdout=0"),
        *("task.source={text}", "task.target={answer}", "adapter=none", "training.baseline=false", "training.eval_every=never"),
        *("training.batch_size=4", "training.max_steps=2", "optimizer.lr=1e-3"),
        *("hardware.threads=1", "hardware.precision=fp32", *settings),
    ]


def planned(run: Path) -> dict:
    """plan.json of a run."""
    return json.loads((run / "plan.json").read_text())


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Final weights of a run."""
    return load_file(run / "model" / "model.safetensors")


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two runs ended in the same weights to the bit."""
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


def test_what_fits_in_parts_is_taken_in_parts(wide: Path, tmp_path: Path) -> None:
    words = training(wide, tmp_path, "training.micro_tokens=2048")
    code, said = crash_lab.run([*words, "output_dir=whole"], tmp_path)
    assert code == 0, said
    whole = planned(tmp_path / "whole")
    assert whole["micro_tokens"] == 2048
    assert whole["trial_bytes"] > 200 * MIB  # the four rows of a step at once

    code, said = crash_faults.run(
        partial(crash_faults.limit_memory, whole["trial_bytes"] * 4 // 5, "make_plan"), [*words, "output_dir=cut"], tmp_path
    )
    assert code == 0, said
    cut = planned(tmp_path / "cut")
    assert cut["micro_tokens"] < 2048
    assert cut["trial_bytes"] < whole["trial_bytes"]
    assert f"2,048 tokens at once do not fit in memory, {cut['micro_tokens']:,} do; this does not change the result" in said

    words[words.index("training.micro_tokens=2048")] = f"training.micro_tokens={cut['micro_tokens']}"
    code, said = crash_lab.run([*words, "output_dir=asked"], tmp_path)
    assert code == 0, said
    assert equal(weights(tmp_path / "cut"), weights(tmp_path / "asked"))
    assert not equal(weights(tmp_path / "cut"), weights(tmp_path / "whole"))  # sums are rounded in another order, and no more
    first, second = weights(tmp_path / "cut"), weights(tmp_path / "whole")
    assert max(float((first[name] - second[name]).abs().max()) for name in first) < 1e-4


def test_too_little_for_one_row_names_what_would_help(wide: Path, tmp_path: Path) -> None:
    words = training(wide, tmp_path, "output_dir=run")
    code, said = crash_faults.run(partial(crash_faults.limit_memory, 50 * MIB, "make_plan"), words, tmp_path)
    assert code == 6, said
    (error,) = (line for line in said.splitlines() if line.startswith("error:"))
    assert "model.gradient_checkpointing=true" in error
    assert "GiB are free" in error
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["exit"]) == ("failed", 6)
    assert not list((tmp_path / "run").glob("checkpoints/step-*"))


def test_too_little_to_load_the_model(wide: Path, tmp_path: Path) -> None:
    code, said = crash_faults.run(
        partial(crash_faults.limit_memory, 12 * MIB, "open_training"), training(wide, tmp_path, "output_dir=run"), tmp_path
    )
    assert code == 6, said
    assert "Traceback" not in said


def steps_of(run: Path) -> dict[int, dict[str, torch.Tensor]]:
    """Weights of each checkpoint, by its step."""
    return {step: load_file(run / f"checkpoints/step-{step:06d}/weights.safetensors") for step in crash_runs.saved_steps(run)}


def refused_at_random(chance: random.Random, tiny: Path, folder: Path) -> None:
    """Refuse memory somewhere in a training with dropout; compare it with the two it is made of, stopped and gone on with."""
    folder.mkdir()
    step, micro_batch, times = chance.randint(1, 4), chance.randint(0, 1), chance.randint(1, 2)
    crash_runs.write_rows(folder / "data")
    settings = ["adapter=none", "training.max_steps=6", "training.eval_every=3", "training.save_every=1", "training.keep=9"]
    settings.append("training.batch_size=8")
    words = crash_runs.training("summarization", tiny / "gpt2", folder / "data", *settings)
    refuse = partial(crash_faults.refuse_memory, step, micro_batch, times)
    code, said = crash_faults.run(refuse, [*words, "training.micro_tokens=180", "output_dir=refused"], folder)
    assert code == 0, said
    notes = [line for line in said.splitlines() if line.startswith(f"step {step}: out of memory; from here on ")]
    assert len(notes) == times, said
    smaller = int(notes[-1].split("from here on ")[1].split(" ")[0])
    state = json.loads((folder / f"refused/checkpoints/step-{step:06d}/state.json").read_text())
    assert state["position"]["micro_tokens"] == smaller

    # the same steps without a refusal: those before it with the large budget, those from it on with the small one
    stop = [*words, "output_dir=made", f"training.micro_tokens={180 if step > 1 else smaller}"]
    env = {"LAB_SIGNAL": f"15@{step - 1}+1"}
    if step > 1:
        command = crash_lab.start(stop, folder, env)
        assert command.wait() == 75, command.said()
    code, said = crash_lab.run([*words, "output_dir=made", f"training.micro_tokens={smaller}"], folder)
    assert code == 0, said
    expected, found = steps_of(folder / "made"), steps_of(folder / "refused")
    assert expected.keys() == found.keys()
    assert all(equal(expected[each], found[each]) for each in expected), f"refused at {step}, {micro_batch}, {times} times"

    # stopped after the refusal, and gone on with: the budget comes from the checkpoint
    after = chance.randint(step, 5)
    command = crash_faults.start(
        refuse, [*words, "training.micro_tokens=180", "output_dir=stopped"], folder, {"LAB_SIGNAL": f"15@{after}+1"}
    )
    assert command.wait() == 75, command.said()
    code, said = crash_lab.run([*words, "training.micro_tokens=180", "output_dir=stopped"], folder)
    assert code == 0, said
    found = steps_of(folder / "stopped")
    assert all(equal(expected[each], found[each]) for each in expected), f"stopped after {after}"


def test_memory_refused_once(tiny: Path, tmp_path: Path) -> None:
    print(f"seed {SEED}")
    refused_at_random(random.Random(SEED), tiny, tmp_path / "0")


@pytest.mark.torture
@pytest.mark.parametrize("number", range(1, 11))
def test_memory_refused(number: int, tiny: Path, tmp_path: Path) -> None:
    print(f"seed {SEED} {number}")
    refused_at_random(random.Random(f"{SEED} {number}"), tiny, tmp_path / str(number))


def test_a_run_that_the_kernel_killed_says_so_when_it_goes_on(tiny: Path, tmp_path: Path) -> None:
    crash_runs.write_rows(tmp_path / "data")
    words = crash_runs.training("summarization", tiny / "llama", tmp_path / "data", "training.max_steps=6", "output_dir=run")
    command = crash_lab.start(words, tmp_path, {"LAB_SIGNAL": "9@4+1"})
    assert command.wait() == -9
    path = tmp_path / "run" / "environment.json"
    environment = json.loads(path.read_text())
    counts = environment["oom_kills"]  # as if there had been fewer when it began
    counts |= {name: counts[name] - 1 for name in ("in_cgroup", "on_machine") if counts[name] is not None}
    path.write_text(json.dumps(environment))
    code, said = crash_lab.run(words, tmp_path)
    assert code == 0, said
    sentence = "it died before its end: the kernel has killed 1 for lack of memory "
    (line,) = (line for line in said.splitlines() if sentence in line)
    assert line.endswith(" since it began. If it was this run, set training.micro_tokens lower; it then goes on with that")

"""Whether a run did the work that it is compared for, and what is made of what was seen."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from llmft.hardware.limits import peak_resident_bytes
from scripts.bench.contest import Expected, lengths_of, other_start, summed_up, wrong
from scripts.bench.flops import Lengths
from scripts.bench.stopwatch import Watched, watch
from scripts.bench.works import Contestant, Kind, Tuning, Work, every_work, works

LORA = next(work for work in works(bf16=False) if work.name == "lora")
EXPECTED = Expected([10, 20, 30, 40], [1, 2, 3, 4], [100.0, 200.0, 300.0, 400.0], [600.0, 300.0, 90.0, 60.0])
GIVEN, GROUPED = Tuning(8, 1), Tuning(8, 1, order="grouped")


def by_llmft(tokens: list[int], units: int) -> list[dict[str, float]]:
    """Lines of metrics.jsonl."""
    lines: list[dict[str, float]] = [{"loss": 2.0, "tokens": each} for each in tokens]
    lines[-1]["loss_units_of_run"] = units
    return lines


def by_peer(units: list[int]) -> list[dict[str, float]]:
    """Lines that a peer writes."""
    return [{"loss": 2.0, "loss_units": each, "positions": 50} for each in units]


@pytest.mark.parametrize(
    ("tuning", "lines", "said"),
    [
        (None, by_llmft([10, 20, 30, 40], 10), []),
        (None, by_llmft([10, 20, 30, 41], 10), ["tokens of the steps [10, 20, 30, 41] instead of [10, 20, 30, 40]"]),
        (None, by_llmft([10, 20, 30, 40], 9), ["9 with loss instead of 10"]),
        (None, by_llmft([10, 20, 30], 10), ["3 steps instead of 4"]),
        (GIVEN, by_peer([1, 2, 3, 4]), []),
        (GIVEN, by_peer([4, 3, 2, 1]), ["[4, 3, 2, 1] with loss instead of [1, 2, 3, 4]"]),
        (GROUPED, by_peer([4, 3, 2, 1]), []),
        (GROUPED, by_peer([4, 3, 2, 2]), ["[11] with loss instead of [10]"]),
    ],
)
def test_other_work_is_seen(tuning: Tuning | None, lines: list[dict[str, float]], said: list[str]):
    """Steps, tokens, and what carries loss."""
    assert wrong(LORA, EXPECTED, tuning, lines) == said


def test_other_weights_or_labels_are_seen():
    """The loss of the first step tells; of grouped rows it cannot."""
    assert other_start([2.0, 9.0], [2.0001, 1.0], GIVEN) is None
    assert other_start([2.01], [2.0], GIVEN) == "the first loss 2.010000 is 5.0e-03 from 2.000000"
    assert other_start([2.01], [2.0], Tuning(8, 1, "bf16")) is None
    assert other_start([9.0], [2.0], GROUPED) is None


def test_first_step_counts_for_the_start_alone():
    """Speed is over the steps after it."""
    watched = Watched(
        0, 20.0, 30.0, 2.0, 1 << 30, at=[5.0, 7.0, 9.0, 11.0], cpu_at=[8.0, 12.0, 16.0, 20.0], lines=by_peer([1, 2, 3, 4])
    )
    run = summed_up(LORA, Contestant("peer", "trainer"), GIVEN, watched, EXPECTED, ceiling=1e3)
    assert (run.startup, run.seconds, run.per_second, run.flops) == (5.0, 6.0, 9 / 6, 900 / 6)
    assert run.step_cpu == 12.0
    assert run.tokens_share == 100 / 200


def test_grouped_rows_are_counted_by_their_operations():
    """The step that is not timed has the longest rows: 450 operations are left, of others 900."""
    watched = Watched(
        0, 20.0, 30.0, 2.0, 1 << 30, at=[5.0, 7.0, 9.0, 11.0], cpu_at=[8.0, 12.0, 16.0, 20.0], lines=by_peer([4, 3, 2, 1])
    )
    run = summed_up(LORA, Contestant("peer", "trainer"), GROUPED, watched, EXPECTED, ceiling=1e3)
    assert (run.seconds, run.per_second, run.flops, run.step_cpu) == (6.0, 9 / 2 / 6, 450 / 6, 24.0)


def test_grouped_steps_are_those_that_the_peers_make(tmp_path: Path):
    """By length over the epoch, the longest first."""
    rows = [{"input_ids": [1] * length, "labels": 0} for length in (3, 9, 5, 7)]
    work = next(work for work in works(bf16=False) if work.name == "encoder")
    work = replace(work, batch_size=2)
    config = {
        "hidden_size": 4,
        "num_hidden_layers": 1,
        "intermediate_size": 8,
        "num_attention_heads": 1,
        "vocab_size": 9,
        "id2label": {"0": "a"},
    }
    (tmp_path / "models" / work.model).mkdir(parents=True)
    (tmp_path / "models" / work.model / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    for name, steps in (("given", [rows[:2], rows[2:]]), ("ranked", [[rows[1], rows[3]], [rows[2], rows[0]]])):
        (tmp_path / f"{name}.steps.json").write_text(json.dumps(steps))
    given, ranked = (Expected.of(replace(work, name=name), tmp_path) for name in ("given", "ranked"))
    assert given.grouped_flops == ranked.flops != given.flops


def test_lengths_of_rows():
    """Both streams of a pair; a class counts as one."""
    assert lengths_of(Kind.decoder, {"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}) == Lengths(0, 3, 2)
    assert lengths_of(Kind.pair, {"input_ids": [1, 2, 3], "labels": [2, 3]}) == Lengths(3, 2, 2)
    assert lengths_of(Kind.label, {"input_ids": [1, 2, 3], "labels": 4}) == Lengths(3, 0, 1)


@pytest.mark.parametrize("bf16", [True, False])
def test_every_setting_is_a_whole_step(bf16: bool):
    """Micro-batches make up the step of the work, names are unique, and bf16 is tried only where there is any."""
    every = every_work(bf16)
    assert len({work.name for work in every}) == len(every) >= 20
    for work in every:
        for contestant in work.contestants:
            names = [tuning.named() for tuning in contestant.grid]
            assert len(set(names)) == len(names)
            for tuning in contestant.grid:
                assert work.kind is Kind.generation or tuning.micro * tuning.accumulate == work.batch_size
                assert bf16 or tuning.dtype == "fp32" or contestant.needs_bf16 or tuning.plain


def test_recipe_names_what_rows_depend_on(tmp_path: Path):
    """Rows are made again when their work has changed."""
    assert not LORA.made(tmp_path)
    (tmp_path / "lora.recipe").write_text(LORA.recipe)
    (tmp_path / "models" / LORA.model).mkdir(parents=True)
    assert LORA.made(tmp_path)
    assert not Work(**{**vars(LORA), "steps": 5}).made(tmp_path)


def test_watching(tmp_path: Path):
    """Lines are timed as they appear; memory and CPU are those of the process; a torn line is none."""
    code = (
        "import time, sys\n"
        "held = bytearray(80 << 20)\n"
        "until = time.process_time() + 0.3\n"
        "while time.process_time() < until: pass\n"
        "with open(sys.argv[1], 'w') as file:\n"
        "    for step in range(2):\n"
        "        time.sleep(0.2); file.write('{\"step\": %d}\\n' % step); file.flush()\n"
        "    file.write('{\"st')\n"
        "print('printed'); sys.exit(3)\n"
    )
    lines, log = tmp_path / "lines", tmp_path / "log"
    seen = watch([sys.executable, "-c", code, str(lines)], lines, log, {}, tmp_path)
    assert seen.exit == 3
    assert seen.lines == [{"step": 0}, {"step": 1}]
    assert 0.15 < seen.at[0] < seen.at[1] <= seen.wall
    assert seen.at[1] - seen.at[0] > 0.1
    # the kernel counts what the watching process held when it split in two, which matters where that is large, as here
    assert 80 << 20 < seen.peak_bytes < max(400 << 20, peak_resident_bytes() + (1 << 20))
    assert 0.25 < seen.cpu_at[0] <= seen.cpu_at[1] <= seen.cpu + 0.02
    assert seen.cpu < seen.wall * 2
    assert log.read_text() == "printed\n"


def test_watching_ends(tmp_path: Path):
    """What takes too long is killed, with all its processes."""
    seen = watch(["sleep", "60"], tmp_path / "lines", tmp_path / "log", {"PATH": "/usr/bin:/bin"}, tmp_path, limit=0.2)
    assert seen.exit == -9
    assert seen.wall < 10
    assert seen.lines == []

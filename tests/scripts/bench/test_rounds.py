"""Rounds with contestants that are played by hand: what is run, what is taken from the record, what is refused."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from scripts.bench.rounds import TUNING, Rounds, Unusable, coarser
from scripts.bench.stopwatch import Watched
from scripts.bench.texts import Row
from scripts.bench.works import Contestant, Kind, Tuning, Work, works

CEILINGS = {"fp32": 1e9, "bf16": 1e9}
PLAIN, FAST, MIXING, BROKEN = Tuning(1, 2), Tuning(2, 1, order="sorted"), Tuning(2, 1, padding_free=True), Tuning(2, 1)
WORK = replace(
    works(bf16=False)[0],
    name="tiny",
    steps=2,
    batch_size=2,
    contestants=(Contestant("llmft", "llmft"), Contestant("peer", "trainer", (PLAIN, FAST, MIXING, BROKEN))),
)
SECONDS = {PLAIN: 4.0, FAST: 2.0, MIXING: 1.0, BROKEN: 1.0, None: 1.0}


class Interrupted(Exception):
    """The operator has had enough."""


@dataclass
class Stage:
    """Stands in the place of a Contest; keeps who was called."""

    folder: Path
    foreign: Sequence[float] = (0.0,)
    bf16: bool = False
    dtype: str = "fp32"
    called: list[Tuning | None] = field(default_factory=list)

    def run(self, work: Work, contestant: Contestant, tuning: Tuning | None, limit: float = 0.0) -> Watched:
        """A run of two steps, the second as long as SECONDS says; or of texts, which have no losses."""
        self.called.append(tuning)
        busy = self.foreign[min(len(self.called), len(self.foreign)) - 1]
        lines: list[Row] = [{"loss": 3.0 + (tuning == MIXING), "loss_units": 2, "positions": 6} for _ in range(2)]
        if work.kind is Kind.generation:
            lines = [{"step": 0}, {"step": 1, "loss_units": 2, "texts": [[1], [2]]}]
        return Watched(
            1 if tuning == BROKEN else 0, 10.0, 10.0, busy * 1000, 1 << 30, [1.0, 1.0 + SECONDS[tuning]], [1.0, 2.0], lines
        )


def rounds_at(folder: Path, **stage: Sequence[float]) -> Rounds:
    """Rounds over two steps of two rows each."""
    row = {"input_ids": [5, 6, 7], "labels": [-100, -100, 7]}
    (folder / "tiny.steps.json").write_text(json.dumps([[row] * 2] * 2))
    (folder / "models" / WORK.model).mkdir(parents=True, exist_ok=True)
    sizes = (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "vocab_size",
    )
    (folder / "models" / WORK.model / "config.json").write_text(json.dumps({"model_type": "llama", **dict.fromkeys(sizes, 4)}))
    return Rounds(Stage(folder, **stage), folder / "runs.jsonl", {"torch": "1"}, "sources", busy=0.05, tries=2)  # type: ignore[arg-type]


def calls(rounds: Rounds) -> list[Tuning | None]:
    """Who had to run."""
    return rounds.contest.called  # type: ignore[attr-defined]


def test_the_fastest_setting_that_does_the_work_plays(tmp_path: Path):
    """A setting that fails or mixes documents is on record with the reason, and does not play."""
    rounds = rounds_at(tmp_path)
    rounds.play(WORK, 0, CEILINGS)
    # llmft once unmeasured, then each setting, then the chosen one
    assert calls(rounds) == [None, None, PLAIN, FAST, MIXING, BROKEN, FAST]
    ours, peer = rounds.played(WORK, rounds=1)
    assert [run.per_second for run in ours.turns] == [2.0]
    assert [(run.tuning, run.per_second) for run in peer.turns] == [(FAST.named(), 1.0)]
    assert [run.round for run in peer.tunings] == [TUNING] * 4
    assert [run.failed for run in peer.tunings] == [
        *(None, None, "other work: the first loss 4.000000 is 3.3e-01 from 3.000000", "exit 1")
    ]


@pytest.mark.parametrize("stopped", [False, True], ids=["", "stopped between two runs"])
def test_settings_near_to_the_fastest_are_run_in_turns_until_their_medians_tell(tmp_path: Path, monkeypatch, stopped: bool):
    """A single lucky run does not choose, nor hide who is near; what is on record is not run again."""
    rounds = rounds_at(tmp_path)
    lucky, steady, hidden = FAST, Tuning(4, 1), Tuning(4, 2)
    work = replace(WORK, contestants=(WORK.contestants[0], Contestant("peer", "trainer", (PLAIN, lucky, steady, hidden))))
    for setting in (steady, hidden):
        monkeypatch.setitem(SECONDS, setting, 2.0)
    # the last is a tenth slower than the lucky run, and not than the medians
    seconds = {
        PLAIN: iter([4.0]),
        lucky: iter([2.0, 2.5, 2.4]),
        steady: iter([2.1, 2.2, 2.1, 2.1]),
        hidden: iter([2.3, 2.3, 2.3]),
    }
    run, ran, stops = Stage.run, [], [6] * stopped

    def of_many_times(stage, work, contestant, tuning, limit=0.0):
        found = run(stage, work, contestant, tuning, limit)
        if tuning is None:
            return found
        if stops == [len(ran)]:
            stops.clear()
            raise Interrupted
        ran.append(tuning)
        return replace(found, at=[1.0, 1.0 + next(seconds[tuning])])

    monkeypatch.setattr(Stage, "run", of_many_times)
    if stopped:
        with pytest.raises(Interrupted):
            rounds.play(work, 0, CEILINGS)
    rounds_at(tmp_path).play(work, 0, CEILINGS)
    assert ran[:4] == [PLAIN, lucky, steady, hidden]
    assert sorted(ran[4:-1], key=str) == sorted([lucky, steady, hidden] * 2, key=str)
    assert ran[-1] == steady
    again = rounds_at(tmp_path)
    again.play(work, 0, CEILINGS)
    assert calls(again) == []


def test_turns_with_a_setting_that_is_no_longer_the_fastest_do_not_count(tmp_path: Path):
    """As where a setting has come to the grid, or gone from it."""
    rounds = rounds_at(tmp_path)
    work = replace(WORK, contestants=(WORK.contestants[0], Contestant("peer", "trainer", (PLAIN, FAST))))
    rounds.play(work, 0, CEILINGS)
    without = replace(work, contestants=(WORK.contestants[0], Contestant("peer", "trainer", (PLAIN, BROKEN))))
    again = rounds_at(tmp_path)
    again.play(without, 0, CEILINGS)
    assert calls(again) == [BROKEN, PLAIN]
    assert [run.tuning for run in again.played(without, rounds=1)[1].turns] == [PLAIN.named()]
    assert [run.tuning for run in again.played(work, rounds=1)[1].turns] == [FAST.named()]


def test_who_writes_texts_is_tuned_too(tmp_path: Path):
    writers = (WORK.contestants[0], Contestant("peer", "generate", (PLAIN, FAST)))
    rounds = rounds_at(tmp_path)
    work = replace(WORK, kind=Kind.generation, contestants=writers)
    rounds.play(work, 0, CEILINGS)
    assert calls(rounds) == [None, None, PLAIN, FAST, FAST]
    assert [(run.tuning, run.per_second) for run in rounds.played(work, rounds=1)[1].turns] == [(FAST.named(), 1.0)]


def test_what_is_on_record_is_not_run_again(tmp_path: Path):
    """A repeated command runs what is missing: another round, or all turns where llmft has changed."""
    rounds_at(tmp_path).play(WORK, 0, CEILINGS)
    again = rounds_at(tmp_path)
    again.play(WORK, 0, CEILINGS)
    assert calls(again) == []
    again.play(WORK, 1, CEILINGS)
    assert calls(again) == [None, FAST]
    changed = rounds_at(tmp_path)
    changed.ours = "others"
    changed.play(WORK, 0, CEILINGS)
    assert calls(changed) == [None, None, FAST]


def test_a_busy_run_is_repeated_and_the_quieter_counts(tmp_path: Path):
    """Up to `tries` times."""
    rounds = rounds_at(tmp_path, foreign=(0.0, 0.9, 0.5))
    rounds.play(replace(WORK, contestants=WORK.contestants[:1]), 0, CEILINGS)
    assert calls(rounds) == [None] * 3
    (run,) = rounds.played(WORK, rounds=1)[0].turns
    assert run.foreign_share == pytest.approx(500 / 10 / (os.cpu_count() or 1))


def test_other_work_ends_the_benchmark(tmp_path: Path):
    """A contestant without a grid whose first loss is not llmft's."""
    rounds = rounds_at(tmp_path)
    with pytest.raises(Unusable, match="tiny, peer: other work"):
        rounds.play(replace(WORK, contestants=(WORK.contestants[0], Contestant("peer", "trainer", (MIXING,)))), 0, CEILINGS)


def test_losses_may_be_as_far_apart_as_the_coarser_format_makes_them():
    assert [coarser(Tuning(8, 1, own), others).dtype for own in ("fp32", "bf16") for others in ("fp32", "bf16")] == [
        "fp32",
        "bf16",
        "bf16",
        "bf16",
    ]

"""Tunes the peers, then plays rounds in which every contestant has one turn after the other; all that was run stays on record."""

import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmft.runs.provenance import fingerprint, hash_file
from scripts.bench import measured
from scripts.bench.contest import Contest, Expected, other_start, summed_up, wrong
from scripts.bench.measured import Measured
from scripts.bench.page import Played
from scripts.bench.works import Contestant, Kind, Tuning, Work

TUNING = -1
"""The round of the runs that choose a peer's setting."""
TOO_LONG = 3
"""A setting that takes so many times the fastest one's time cannot become the fastest, whatever else the machine does."""


class Unusable(Exception):
    """A run failed, or did other work than it was given."""


def say(text: str) -> None:
    """Tell the operator."""
    print(text, file=sys.stderr, flush=True)


@dataclass
class Rounds:
    """A benchmark in progress.

    versions: what the figures depend on beside the work; ours: a hash of llmft's own sources; busy: the part of the machine
    that others may take before a run is repeated, `tries` times in all.
    """

    contest: Contest
    record: Path
    versions: Mapping[str, Any]
    ours: str
    busy: float
    tries: int

    def state(self, work: Work, tuning: bool) -> str:
        """Return a hash of all that figures of a work depend on; those of rounds also on llmft, beside which the others ran."""
        rows = hash_file(self.contest.folder / f"{work.name}.steps.json")
        parts = {"versions": self.versions, "rows": rows, "lr": work.lr, "lora": work.lora, "settings": work.settings}
        return fingerprint(**parts, **({} if tuning else {"llmft": self.ours}))

    def on_record(self, work: Work, contestant: Contestant, tuning: bool) -> list[Measured]:
        """Return the runs that this command would repeat: those that choose a setting of the grid, or the turns."""
        wanted = (work.name, contestant.name, self.state(work, tuning))
        grid = {each.named() for each in contestant.grid} or {""}
        found = [run for run in measured.read(self.record) if (run.work, run.contestant, run.state) == wanted]
        return [run for run in found if (run.round == TUNING) is tuning and run.tuning in grid]

    def played(self, work: Work, rounds: int) -> list[Played]:
        """Return all that is on record of a work; of turns, those with the setting that is the fastest by now."""
        found = []
        for each in work.contestants:
            tunings = self.on_record(work, each, tuning=True)
            turns = [run for run in self.on_record(work, each, tuning=False) if run.round < rounds]
            if tunings:
                fastest = measured.find_fastest(measured.by_setting(tunings))
                turns = [run for run in turns if run.tuning == fastest]
            found.append(Played(each, turns, tunings))
        return found

    def turn(
        self,
        work: Work,
        contestant: Contestant,
        tuning: Tuning | None,
        ceilings: Mapping[str, float],
        limit: float = float("inf"),
    ) -> Measured:
        """Let a contestant do the work, again while others keep the machine busy, and return the quietest run.

        Raises Unusable where a run failed, took more than `limit` seconds, or did other work.
        """
        expected = Expected.of(work, self.contest.folder)
        runs: list[Measured] = []
        while len(runs) < self.tries and not any(run.foreign_share <= self.busy for run in runs):
            watched = self.contest.run(work, contestant, tuning, limit)
            if watched.exit:
                raise Unusable(
                    "killed: it takes too long, or too much memory"
                    if watched.exit == -signal.SIGKILL
                    else f"exit {watched.exit}"
                )
            if problems := wrong(work, expected, tuning, watched.lines):
                raise Unusable(f"other work: {'; '.join(problems)}")
            dtype = tuning.dtype if tuning else self.contest.dtype
            run = summed_up(work, contestant, tuning, watched, expected, ceilings["fp32" if dtype == "fp32" else "bf16"])
            say(
                f"{work.name}, {contestant.name}{f' ({run.tuning})' if run.tuning else ''}: {run.per_second:.2f}/s, first step "
                f"after {run.startup:.1f} s, {run.peak_bytes >> 20:,} MiB, others {100 * run.foreign_share:.0f} %"
            )
            runs.append(run)
        return min(runs, key=lambda run: run.foreign_share)

    def tuned(self, work: Work, contestant: Contestant, ceilings: Mapping[str, float]) -> Tuning | None:
        """Return a peer's setting: the fastest of its grid by a run each, and more in turns of those near to it. llmft has none.

        Raises Unusable if the first one of the grid fails.
        """
        if len(contestant.grid) <= 1:
            return contestant.grid[0] if contestant.grid else None
        settings = {tuning.named(): tuning for tuning in contestant.grid}
        runs = measured.by_setting(self.on_record(work, contestant, tuning=True))
        tried = {setting: runs[setting] for setting in settings if setting in runs}
        for setting, tuning in settings.items():
            if setting not in tried:
                tried[setting] = [self.tried_out(work, contestant, tuning, ceilings, tried)]
        while again := measured.still_to_run(tried):
            for setting in again:
                tried[setting].append(self.tried_out(work, contestant, settings[setting], ceilings, tried))
        return settings[measured.find_fastest(tried)]

    def tried_out(
        self,
        work: Work,
        contestant: Contestant,
        tuning: Tuning,
        ceilings: Mapping[str, float],
        tried: Mapping[str, Sequence[Measured]],
    ) -> Measured:
        """Run a setting of a grid and put it on record; with the reason where it fails, or is not to be taken.

        tried: the runs so far. The first of the grid has no padding and nothing special: the others' first loss has to be its.
        Raises Unusable where none has gone through yet.
        """
        seen = [run for runs in tried.values() for run in runs if run.failed is None]
        limit = TOO_LONG * min((run.startup + run.seconds for run in seen), default=float("inf"))
        try:
            run = self.turn(work, contestant, tuning, ceilings, limit)
            plainest = contestant.grid[0]
            first = tried[plainest.named()][0].losses if plainest.named() in tried else run.losses
            apart = coarser(tuning, plainest.dtype)
            if work.kind is not Kind.generation and (problem := other_start(run.losses, first, apart)):
                raise Unusable(f"other work: {problem}")
        except Unusable as error:
            if not seen:
                raise
            say(f"{work.name}, {contestant.name} ({tuning.named()}): {error}")
            run = replace(seen[0], tuning=tuning.named(), per_second=0.0, failed=str(error))
        run = replace(run, round=TUNING, state=self.state(work, tuning=True))
        measured.append(self.record, run)
        return run

    def play(self, work: Work, number: int, ceilings: Mapping[str, float]) -> None:
        """Play a round of a work: a turn for every contestant that has not had it. Raises Unusable where one fails, or does other work."""
        state, ours = self.state(work, tuning=False), None
        for contestant in work.contestants:
            if contestant.needs_bf16 and not self.contest.bf16:
                continue
            tuning, known = self.tuned(work, contestant, ceilings), self.on_record(work, contestant, tuning=False)
            setting = tuning.named() if tuning else ""
            run = next((run for run in known if run.round == number and run.tuning == setting), None)
            if run is None:
                if not known and contestant.tool == "llmft" and not work.cold:
                    self.contest.run(
                        work, contestant, tuning
                    )  # its cache is warm from here on, as the peers' is by their tuning
                run = replace(self.turn(work, contestant, tuning, ceilings), round=number, state=state)
                measured.append(self.record, run)
            ours = ours or run
            if work.kind is Kind.generation or tuning is None:
                continue
            if problem := other_start(run.losses, ours.losses, coarser(tuning, self.contest.dtype)):
                raise Unusable(f"{work.name}, {contestant.name}: other work: {problem}")


def coarser(tuning: Tuning, dtype: str) -> Tuning:
    """Return a tuning whose losses may be as far from others' as the coarser of its own number format and theirs makes them."""
    return tuning if tuning.dtype != "fp32" else replace(tuning, dtype=dtype)

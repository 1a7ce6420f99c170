"""What was measured: one JSON line per run, read back so that a repeated command runs only what is missing."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from llmft.runs.journal import Journal


@dataclass(frozen=True)
class Measured:
    """One run of a contestant, or of one tuning of it (`round` is -1).

    per_second: loss-bearing tokens (texts, new tokens) a second over the steps after the first; startup: seconds from the
    command to the end of its first step; seconds: what the steps after it took; step_cpu: the same of all cores together (of
    grouped rows: for as much work as the others' steps are); cpu: of all; flops: operations a second over the same steps (see
    flops), of which `ceiling` were possible; tokens_share: tokens among the positions computed, the rest is padding, None where it is not known; texts: hashes
    of what was generated; failed: why a setting cannot be taken, its figures being nothing then.
    foreign_share: part of the machine that other processes took. state: a hash of all that the figures depend on.
    """

    work: str
    contestant: str
    tuning: str
    round: int
    state: str
    date: str
    per_second: float
    startup: float
    seconds: float
    step_cpu: float
    cpu: float
    peak_bytes: int
    foreign_share: float
    flops: float = 0.0
    ceiling: float = 0.0
    losses: list[float] = field(default_factory=list)
    tokens_share: float | None = None
    texts: list[str] = field(default_factory=list)
    failed: str | None = None


NEAR = 0.9
"""Of the fastest setting's median: what comes so near to it by a run or two has to show by more which one is the faster."""
RUNS = 3
"""How many they have."""


@dataclass(frozen=True)
class Spread:
    """The median of some figures, with the least and the largest."""

    median: float
    low: float
    high: float
    n: int

    def text(self, digits: int = 2) -> str:
        """Return `median (low to high)`."""
        if self.n == 1:
            return f"{self.median:,.{digits}f}"
        return f"{self.median:,.{digits}f} ({self.low:,.{digits}f} to {self.high:,.{digits}f})"


def spread(values: Iterable[float]) -> Spread:
    """Sum figures up; there has to be one."""
    ordered = sorted(values)
    return Spread(statistics.median(ordered), ordered[0], ordered[-1], len(ordered))


def read(path: Path) -> list[Measured]:
    """Return all runs on record; those that other versions of these scripts wrote, with other figures, are none."""
    names = {each.name for each in fields(Measured)}
    return [Measured(**row) for row in Journal.read(path) if row.keys() == names] if path.exists() else []


def append(path: Path, run: Measured) -> None:
    """Add a run to the record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    journal = Journal(path)
    journal.append(asdict(run))
    journal.close()


def ratios(ours: Sequence[Measured], others: Sequence[Measured], of: Callable[[Measured], float]) -> Spread | None:
    """Return our figure over another's, round by round: neighbours of one round met the same machine. None without a common round."""
    theirs = {run.round: of(run) for run in others}
    found = [of(run) / theirs[run.round] for run in ours if theirs.get(run.round)]
    return spread(found) if found else None


def by_setting(runs: Iterable[Measured]) -> dict[str, list[Measured]]:
    """Return the runs of each setting, both in the order they were run."""
    found: dict[str, list[Measured]] = {}
    for run in runs:
        found.setdefault(run.tuning, []).append(run)
    return found


def still_to_run(tried: Mapping[str, Sequence[Measured]]) -> list[str]:
    """Return the settings that need another run: those near to the fastest, by the medians so far, with the fewest; none: it is settled."""
    rivals = find_rivals(tried)
    fewest = min(len(tried[setting]) for setting in rivals)
    if len(rivals) == 1 or fewest >= RUNS:
        return []
    return [setting for setting in rivals if len(tried[setting]) == fewest]


def find_fastest(tried: Mapping[str, Sequence[Measured]]) -> str:
    """Return the setting that is the fastest by the median of its runs."""
    return max(find_rivals(tried), key=lambda setting: speed_of(tried[setting]))


def find_rivals(tried: Mapping[str, Sequence[Measured]]) -> list[str]:
    """Return the settings that come near to the fastest one, itself among them."""
    least = NEAR * max(speed_of(runs) for runs in tried.values())
    return [setting for setting, runs in tried.items() if speed_of(runs) >= least]


def speed_of(runs: Sequence[Measured]) -> float:
    """Return the median speed of a setting; 0 for one that failed once, and cannot be taken."""
    return 0.0 if any(run.failed for run in runs) else statistics.median(run.per_second for run in runs)

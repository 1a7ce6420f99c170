"""The sweeper behind hydra/sweeper=search: instead of every combination, the trials that look promising (optuna).

`llmft train -m hydra/sweeper=search hydra.sweeper.n_trials=20 optimizer.lr='tag(log,interval(1e-5,1e-3))' adapter.r=4,8,16`
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from llmft.errors import ConfigError
from llmft.runs import durable, signals
from llmft.sweep import rows

if TYPE_CHECKING:  # optuna is an extra, and takes half a second to import
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial

SAMPLERS = ("tpe", "random")
PROPOSALS = 50
"""How many proposals in a row may repeat earlier trials: then blind draws are tried, and after as many the search ends."""


def register() -> None:
    """Tell Hydra about the sweeper. Hydra takes plug-ins only from a package of the name hydra_plugins, hence the alias."""
    Plugins.instance().register(SearchSweeper)
    Plugins.instance().class_name_to_class["hydra_plugins.llmft.SearchSweeper"] = SearchSweeper


class SearchSweeper(Sweeper):
    """Asks optuna for trials, runs `n_jobs` of them at a time, and tells optuna the objective that each wrote to disk."""

    def __init__(self, n_trials: int, n_jobs: int, sampler: str, seed: int):
        self.n_trials, self.n_jobs, self.sampler, self.seed = n_trials, n_jobs, sampler, seed

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra hands to every sweeper."""
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the search. Trials of an earlier attempt in the same directory come first, with the same parameters.

        Raises ConfigError without optuna, or for a range that cannot be searched.
        """
        assert self.config is not None
        assert self.launcher is not None
        self._check()
        optuna = _import_optuna()
        fixed, space = self._space(arguments)
        sweep_dir = Path(self.config.hydra.sweep.dir)
        path = sweep_dir / "search.json"
        earlier = json.loads(path.read_text(encoding="utf-8"))["trials"] if path.exists() else []
        # The seed moves with the earlier trials: they are not drawn again, so the same seed would draw their values twice.
        seed = self.seed + len(earlier)
        study = optuna.create_study(sampler=_sampler(self.sampler, seed))
        for parameters in earlier:
            study.enqueue_trial(parameters)
        tried: list[dict[str, Any]] = []
        at_once = self.n_jobs if self.n_jobs > 0 else os.cpu_count() or 1
        while len(tried) < self.n_trials:
            start = len(tried)
            trials: list[Trial] = []
            while len(trials) < min(at_once, self.n_trials - start) and (trial := _ask(study, space, tried)):
                trials.append(trial)
                tried.append(trial.params)
            if not trials:
                print(f"search: no untried combination found after {start} of {self.n_trials} trials", file=sys.stderr)
                break
            durable.write_json(path, {"trials": tried + earlier[len(tried) :]})
            batch = [[*fixed, *(f"{key}={value}" for key, value in trial.params.items())] for trial in trials]
            self.validate_batch_is_legal(batch)
            for job in self.launcher.launch(batch, initial_job_idx=start):
                _ = job.return_value  # raises what went wrong outside the job itself, as Hydra's own sweeper does
            for number, trial in enumerate(trials, start):
                _tell(study, trial, rows.read_row(sweep_dir, number))
            signals.check()  # noted while jobs ran in other processes
        _write_best(sweep_dir, tried)

    def _check(self) -> None:
        problems = []
        if not isinstance(self.n_trials, int) or self.n_trials < 1:
            problems.append(f"hydra.sweeper.n_trials={self.n_trials}: expected a whole number, at least 1. Correct it.")
        if not isinstance(self.n_jobs, int):
            problems.append(f"hydra.sweeper.n_jobs={self.n_jobs}: expected a whole number; -1: one per core. Correct it.")
        if self.sampler not in SAMPLERS:
            problems.append(
                f"hydra.sweeper.sampler={self.sampler}: no such sampler; there are {' and '.join(SAMPLERS)}. Choose one."
            )
        if problems:
            raise ConfigError(*problems)

    def _space(self, arguments: list[str]) -> tuple[list[str], "dict[str, BaseDistribution]"]:
        """Split the command line into settings that stay and those to search over."""
        assert self.config is not None
        assert self.hydra_context is not None
        overrides = OverridesParser.create(config_loader=self.hydra_context.config_loader).parse_overrides(arguments)
        fixed = [
            f"{override.get_key_element()}={override.get_value_element_as_str()}"
            for override in overrides
            if not override.is_sweep_override()
        ]
        swept = [override for override in overrides if override.is_sweep_override()]
        if not swept:
            raise ConfigError(
                "hydra/sweeper=search: nothing to search over; expected at least one setting with several values."
                " Give one a range, such as optimizer.lr='tag(log,interval(1e-5,1e-3))', or a list of values."
            )
        space = {override.get_key_element(): _distribution(override, self.config) for override in swept}
        # A misspelt choice ends the sweep now, not at the trial that draws it.
        self.validate_batch_is_legal(
            [[*fixed, f"{key}={choice}"] for key, values in space.items() for choice in getattr(values, "choices", ())]
        )
        return fixed, space


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError as err:
        raise ConfigError(
            "hydra/sweeper=search: optuna is not installed; the search needs it. Install it: pip install 'llmft[search]'"
        ) from err
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _distribution(override: Override, config: DictConfig) -> "BaseDistribution":
    """The values that a setting may take. Raises ConfigError for a range without values or with bounds the wrong way round."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    values = override.value()
    try:
        if isinstance(values, IntervalSweep):
            low, high, log = float(values.start or 0), float(values.end or 0), "log" in values.tags
            # Hydra reads interval(4,64) as 4.0 and 64.0; a setting that holds a whole number now takes whole numbers.
            if low.is_integer() and high.is_integer() and type(OmegaConf.select(config, override.key_or_group)) is int:
                return IntDistribution(int(low), int(high), log=log)
            return FloatDistribution(low, high, log=log)
        if isinstance(values, RangeSweep):
            steps = list(values.range())
            if isinstance(steps[0], int):
                return IntDistribution(min(steps), max(steps), step=abs(int(values.step)))
            return FloatDistribution(min(steps), max(steps), step=abs(values.step))
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    except (ValueError, IndexError) as err:
        raise ConfigError(
            f"{override.input_line}: not a range that can be searched ({err}); expected a lower and a higher bound,"
            " both above 0 with tag(log,...). Correct the bounds."
        ) from err


def _ask(study: "Study", space: "dict[str, BaseDistribution]", tried: list[dict[str, Any]]) -> "Trial | None":
    """A trial not tried yet, as a run repeats exactly; None if there seem to be no more."""
    guided = study.sampler
    try:
        for attempt in range(2 * PROPOSALS):
            if attempt == PROPOSALS:  # in a small space TPE may circle around the best it knows
                study.sampler = _sampler("random", len(tried))
            trial = study.ask(space)
            if trial.params not in tried:
                return trial
            study.tell(trial, state=_state("FAIL"))
        return None
    finally:
        study.sampler = guided


def _tell(study: "Study", trial: "Trial", row: rows.Row | None) -> None:
    """Tell optuna the objective, always as something to minimise: only the finished run knows which way is better."""
    objective = row.objective if row else None
    if objective is None or objective.value is None:
        study.tell(trial, state=_state("FAIL"))
    else:
        study.tell(trial, -objective.value if objective.higher_is_better else objective.value)


def _sampler(name: str, seed: int) -> Any:
    from optuna.samplers import RandomSampler, TPESampler

    return RandomSampler(seed=seed) if name == "random" else TPESampler(seed=seed)


def _state(name: str) -> Any:
    from optuna.trial import TrialState

    return TrialState[name]


def _write_best(sweep_dir: Path, tried: list[dict[str, Any]]) -> None:
    """best.yaml: the parameters of the best trial. Not written if none succeeded; the sweep then exits with 1 by itself."""
    row = rows.best(rows.read(sweep_dir))
    if row is None or row.objective is None:
        return
    value = {"job": row.number, "objective": vars(row.objective), "parameters": tried[row.number], "run": row.output_dir}
    durable.write_text(sweep_dir / "best.yaml", yaml.safe_dump(value, sort_keys=False, allow_unicode=True))

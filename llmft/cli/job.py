"""train, eval and predict: the command line checked and composed by Hydra, then the work, or a sweep of it."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from llmft.cli import arguments
from llmft.cli.arguments import Arguments
from llmft.config import compose, explain, overrides, rules, sources
from llmft.config.schema import EvalRun, TrainRun
from llmft.errors import ConfigError

OURS = ("hydra.run.dir=.", "hydra.output_subdir=null", "hydra.job.chdir=false", "hydra.sweep.subdir=.",
        "hydra/job_logging=none", "hydra/hydra_logging=none")  # fmt: skip
"""Run directories and logging are ours, not Hydra's."""


def run(command: str, words: list[str], typed: list[str]) -> int:
    """Run a command and return its exit code.

    words: what follows the command. typed: the whole command line, for the record.
    Raises ConfigError before anything heavy is imported, then whatever the work raises.
    """
    asked = arguments.parse(words, command)
    folders = [sources.built_in(), *sources.user_folders(asked.config_dir)]
    sources.check_shadowing(folders)
    root = compose.ROOTS[command]
    settings = [arguments.quote(word, root, asked.multirun) for word in asked.settings]
    problems = overrides.check(settings, root, command, asked.multirun, folders)
    if problems:
        raise ConfigError(*problems)
    compose.register(folders[1:])
    with sentences(command):
        previewed = compose.preview(command, asked.config_name or command, [*overrides.first_values(settings), *OURS])
    if asked.multirun:
        return _sweep(command, asked, settings, str(previewed.output_root), typed)
    jobs: list[Callable[[], Any]] = []

    def take(cfg: DictConfig) -> None:  # only noted, so that what the work raises does not go through Hydra
        try:
            values, named = compose.plain(cfg, command), list(HydraConfig.get().overrides.task)
            jobs.append(lambda: _work(command, values, named, typed))
        except ConfigError as error:
            problems.extend(error.problems)

    _call_hydra(command, asked, [*settings, *OURS], take)
    if problems:
        raise ConfigError(*problems)
    for job in jobs:  # none if Hydra only had to show something
        job()
    return 0


def _sweep(command: str, asked: Arguments, settings: list[str], output_root: str, typed: list[str]) -> int:
    # Imported here: a sweep looks at the runs it started, which a single run does not need.
    from llmft.sweep import jobs, search

    search.register()
    folder = jobs.choose(output_root, typed)

    def job(cfg: DictConfig) -> float | None:
        told = HydraConfig.get()
        values, named = compose.plain(cfg, command), list(told.overrides.task)
        output_key = "output_dir" if command == "train" else "output"
        return jobs.run_job(
            Path(told.sweep.dir),
            int(told.job.num),
            named,
            values,
            lambda output: _work(command, values | {output_key: output}, named, typed),
        )

    place = QuotedString(str(folder), Quote.single).with_quotes()
    try:
        _call_hydra(command, asked, [*settings, *OURS, f"hydra.sweep.dir={place}"], job)
    finally:
        code = jobs.finish(folder)
    return code


def _call_hydra(command: str, asked: Arguments, settings: list[str], function: Callable[[DictConfig], Any]) -> None:
    """hydra.main with the command line put in order; its errors come back as ConfigError."""
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [f"llmft {command}", *asked.flags(), *settings]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing and leaving
    try:
        with sentences(command):
            hydra.main(version_base="1.3", config_path=str(sources.built_in()), config_name=command)(function)()
    finally:
        sys.argv = argv
        if full_error is None:
            os.environ.pop("HYDRA_FULL_ERROR", None)


@contextmanager
def sentences(command: str) -> Iterator[None]:
    """Turn what Hydra, OmegaConf and YAML raise into ConfigError."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, yaml.MarkedYAMLError) as error:
        raise ConfigError(explain.hydra_error(error, command)) from error


def _work(command: str, values: dict[str, Any], named: list[str], typed: list[str]) -> float | None:
    """Check the settings and do what they say; the value of training.metric where there is one."""
    if command != "train" and values["run"] is not None:
        # Imported here: a plain configuration error must not wait for it.
        from llmft.runs.directory import resolve

        folder = resolve(str(values["run"]), str(values["output_root"]))
        folders = [sources.built_in(), *compose.UserFolders.folders]
        keys = overrides.named_keys(named, compose.ROOTS[command], folders)
        values = compose.from_run(values, keys, compose.read_run(folder), command) | {"run": str(folder)}
    settings = compose.to_run(values, command)
    problems = rules.check(settings)
    if problems:
        raise ConfigError(*problems)
    if isinstance(settings, TrainRun):
        from llmft.train import train

        return train(settings, typed)
    if isinstance(settings, EvalRun):
        from llmft.evaluate import evaluate

        evaluate(settings, typed)
    else:
        from llmft.predict import predict

        predict(settings, typed)
    return None

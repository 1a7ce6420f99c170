"""train, eval and predict: the command line checked and composed by Hydra, then the work, or a sweep of it."""

import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, flag_override
from omegaconf.errors import OmegaConfBaseException

from llmft.cli import arguments
from llmft.cli.arguments import Arguments
from llmft.cli.imports import uncollected
from llmft.config import compose, explain, overrides, rules, sources
from llmft.config.schema import EvalRun, TrainRun
from llmft.config.secrets import redact
from llmft.config.yaml_files import TYPED_ALONE
from llmft.errors import ConfigError
from llmft.runs import signals

TYPED = re.compile(rf"\+{{0,2}}{re.escape(TYPED_ALONE)}=")
OURS = ("hydra.run.dir=.", "hydra.output_subdir=null", "hydra.job.chdir=false", "hydra.sweep.subdir=.",
        "hydra/job_logging=none", "hydra/hydra_logging=none")  # fmt: skip
"""Run directories and logging are ours, not Hydra's."""
BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
"""Runs the jobs of a sweep in this process."""


@dataclass(frozen=True)
class Request:
    """A command line, understood. A sweep may hand it to other processes."""

    command: str
    asked: Arguments
    settings: list[str]
    """As Hydra's grammar wants them."""
    folders: list[Path]
    """Where YAML is looked for, the built-in folder first."""
    typed: list[str]
    """The whole command line as it was typed, for the record."""


def run(command: str, words: list[str], typed: list[str]) -> int:
    """Run a command and return its exit code.

    words: what follows the command. typed: the whole command line, for the record.
    Raises ConfigError before anything heavy is imported, then whatever the work raises.
    """
    # Without _self_ a file's own settings win over those of the files it names: what its author means, no cause to warn.
    warnings.filterwarnings("ignore", message=".*Defaults list is missing `_self_`")
    with signals.deferred():  # raised in the middle of OmegaConf, Stopped turns into something else
        asked = arguments.parse(words, command)
        folders = [sources.built_in(), *sources.user_folders(asked.config_dir)]
        sources.check_shadowing(folders)
        root = compose.ROOTS[command]
        settings = [arguments.quote(word, root, asked.multirun) for word in asked.settings]
        problems = overrides.check(settings, root, command, asked.multirun, folders)
        if problems:
            raise ConfigError(*problems)
        compose.register(folders[1:])
        request = Request(command, asked, settings, folders, typed)
    with signals.deferred(), sentences(request):
        tried = [[*words, *OURS] for words in overrides.to_try(settings, folders)]
        previewed, *_ = [compose.preview(command, asked.config_name or command, words) for words in tried]
    if asked.multirun:
        place = "output_dir" if command == "train" else "output"
        if previewed[place] is not None:
            raise ConfigError(
                f"{place}={previewed[place]}: each job of a sweep has a folder of its own. Leave it out; output_root=FOLDER says"
                " where the sweep's folder is."
            )
        return _sweep(request, str(previewed.output_root), previewed.hydra.launcher.get("_target_") != BASIC_LAUNCHER)
    # Hydra would show it without the settings of the run
    if asked.cfg == "job" and command != "train" and previewed.run is not None:
        values = _with_run(request, compose.plain(previewed, command), asked.settings)
        print(redact(yaml.safe_dump(values, sort_keys=False, allow_unicode=True)), end="")
        return 0
    with signals.deferred():
        if asked.cfg or asked.info:
            said = io.StringIO()
            with redirect_stdout(said):  # Hydra knows no secrets
                _call_hydra(request, lambda _: None)
            print(redact(said.getvalue()), end="")
            return 0
        HydraConfig.instance().set_config(previewed)  # for ${hydra:...}
        with flag_override(previewed, ["readonly", "struct"], False):
            del previewed["hydra"]
        values, named = compose.plain(previewed, command), list(HydraConfig.get().overrides.task)
    _work(request, values, named)
    return 0


def _sweep(request: Request, output_root: str, elsewhere: bool) -> int:
    """Run the jobs; `elsewhere`: a launcher runs them in other processes."""
    with signals.deferred():
        # Imported here: a sweep looks at the runs it started, which a single run does not need.
        from llmft.sweep import jobs, search, workers

        search.register()
        folder = jobs.choose(output_root, request.typed)

    def job(cfg: DictConfig) -> float | None:
        told = HydraConfig.get()
        values, named = compose.plain(cfg, request.command), list(told.overrides.task)

        def work(output: str) -> float | None:
            return _work(request, values | _output(request.command, output), named)

        return jobs.run_job(Path(told.sweep.dir), int(told.job.num), named, values, work)

    try:
        with workers.stopped_together(folder) if elsewhere else nullcontext():
            _call_hydra(request, job, f"hydra.sweep.dir={QuotedString(str(folder), Quote.single).with_quotes()}")
    finally:
        code = jobs.finish(folder)
    return code


def _output(command: str, folder: str) -> dict[str, str]:
    """The setting that makes a command write into the folder of its job."""
    if command == "train":
        return {"output_dir": folder}
    return {"output": folder if command == "eval" else f"{folder}/predictions.jsonl"}


def _call_hydra(request: Request, function: Callable[[DictConfig], Any], *more: str) -> None:
    """hydra.main with the command line put in order; its errors come back as ConfigError."""
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [f"llmft {request.command}", *request.asked.flags(), *request.settings, *OURS, *more]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing and leaving
    try:
        with sentences(request):
            hydra.main(version_base="1.3", config_path=str(request.folders[0]), config_name=request.command)(function)()
    finally:
        sys.argv = argv
        if full_error is None:
            os.environ.pop("HYDRA_FULL_ERROR", None)


@contextmanager
def sentences(request: Request) -> Iterator[None]:
    """Turn what Hydra, OmegaConf and YAML raise into ConfigError."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, yaml.MarkedYAMLError) as error:
        raise ConfigError(explain.hydra_error(error, request.command)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(*(f"{path}: not UTF-8. Save it as UTF-8." for path in sources.not_utf8(request.folders))) from error


def _with_run(request: Request, values: dict[str, Any], named: list[str]) -> dict[str, Any]:
    """The values of eval or predict on top of those of the run that they name."""
    # Imported here: a plain configuration error must not wait for it.
    from llmft.runs.directory import resolve

    folder = resolve(str(values["run"]), str(values["output_root"]))
    keys = overrides.named_keys(named, compose.ROOTS[request.command], request.folders)
    if "model.name" in keys and (folder / "model" / "config.json").is_file():  # not an adapter, whose base may have moved
        raise ConfigError(
            f"model.name={values['model']['name']}: the run {folder} has a model of its own. Leave it out, or leave out run= to"
            f" {request.command} with that model."
        )
    return compose.from_run(values, keys, compose.read_run(folder), request.command) | {"run": str(folder)}


def _work(request: Request, values: dict[str, Any], named: list[str]) -> float | None:
    """Check the settings and do what they say; the value of training.metric where there is one."""
    with signals.deferred():  # OmegaConf, and some libraries catch everything that an import raises
        if request.command != "train" and values["run"] is not None:
            values = _with_run(request, values, named)
        settings = compose.to_run(values, request.command)
        problems = rules.check(settings)
        # by whatever way it came from a file: merged, resolved, or as a parameter of a sweep
        if settings.model.trust_remote_code and not any(TYPED.match(word) for word in request.settings):
            problems.append(
                f"{TYPED_ALONE}=true: cannot come from a file, only from the command line. Type it there, or leave it out."
            )
        if problems:
            raise ConfigError(*problems)
        # Imported here: mistakes must not wait for torch.
        with uncollected("torch"):
            from llmft.evaluate import evaluate
            from llmft.predict import predict
            from llmft.train import train
    if isinstance(settings, TrainRun):
        return train(settings, request.typed)
    if isinstance(settings, EvalRun):
        evaluate(settings, request.typed)
    else:
        predict(settings, request.typed)
    return None

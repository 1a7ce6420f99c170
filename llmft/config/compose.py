"""From Hydra's DictConfig to the plain dataclasses that the rest of llmft sees."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from llmft.config import dump, explain, schema, settings, sources, yaml_files
from llmft.errors import ConfigError

Run = schema.TrainRun | schema.EvalRun | schema.PredictRun
ROOTS: dict[str, type] = {"train": schema.TrainRun, "eval": schema.EvalRun, "predict": schema.PredictRun}
NOT_FROM_A_RUN = "plugins", "output_root", "output_dir", "gate"
"""What config.yaml of a run says about these does not carry over: whom to trust, where to write and what to demand is said anew."""


class UserFiles(FileConfigSource):
    """Hydra reads the user's YAML through this, so that no file does harm before `preview` has had its look at it."""

    latest: Path | None = None
    """The file read last."""

    @staticmethod
    def scheme() -> str:
        return "llmft-user"

    def load_config(self, config_path: str) -> ConfigResult:
        UserFiles.latest = path = Path(self.path) / self._normalize_file_name(config_path)
        if path.is_file():
            yaml_files.read(path)
        result = super().load_config(config_path)
        content = OmegaConf.to_container(result.config, resolve=False)
        if problems := yaml_files.check_hydra(path, content):
            raise ConfigError(*problems)
        return result


class UserFolders(SearchPathPlugin):
    """Puts the user's folders behind the built-in one, so that nothing built-in is replaced unseen."""

    folders: list[Path] = []

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in self.folders:
            search_path.append("llmft-user", f"{UserFiles.scheme()}://{folder}")


def register(folders: list[Path]) -> None:
    """Tell Hydra the schema of each command and the folders where users keep their YAML."""
    for command, root in ROOTS.items():
        ConfigStore.instance().store(group="schema", name=command, node=root, package="_global_", provider="llmft")
    UserFolders.folders = folders
    Plugins.instance().register(UserFiles)
    Plugins.instance().register(UserFolders)


def preview(command: str, config_name: str, words: list[str]) -> DictConfig:
    """Compose as Hydra will, having checked every YAML file that takes part, and return the result with Hydra's own settings.

    words: settings without sweeps. Raises ConfigError, or whatever Hydra raises.
    """
    folders = [sources.built_in(), *UserFolders.folders]
    with initialize_config_dir(version_base="1.3", config_dir=str(folders[0])), _explained(config_name):
        parts = GlobalHydra.instance().config_loader().compute_defaults_list(config_name, words, RunMode.RUN).defaults
        files = [(sources.find(part.config_path, folders), part.package or "") for part in parts if part.config_path]
        problems = []
        for path, package in files:
            if path is not None:
                problems += yaml_files.check(path, package, ROOTS[command], command)
                problems += yaml_files.check_recorded(path) if yaml_files.is_recorded(path, folders[1:]) else []
        if problems:
            raise ConfigError(*problems)
        return compose(config_name, overrides=words, return_hydra_config=True)


@contextmanager
def _explained(config_name: str) -> Iterator[None]:
    """Turn what Hydra raises by the way, over defaults lists and headers of no sense, into ConfigError."""
    UserFiles.latest = None
    try:
        yield
    except (HydraException, OmegaConfBaseException, UnicodeDecodeError):
        raise
    except (AssertionError, AttributeError, KeyError, OSError, TypeError, ValueError, RecursionError) as error:
        where = UserFiles.latest or f"{config_name}.yaml"
        what = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, RecursionError):
            what = "its defaults list, or one that it names, comes back to itself"
        raise ConfigError(f"{where}: {what}. Correct the first comment line, or the defaults list.") from error


def plain(cfg: DictConfig, command: str) -> dict[str, Any]:
    """The composed values without Hydra's own, every ${...} resolved.

    Raises ConfigError if one cannot be resolved.
    """
    try:
        values = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    except OmegaConfBaseException as error:
        raise ConfigError(explain.hydra_error(error, command)) from error
    assert isinstance(values, dict), values
    values.pop("hydra", None)
    return values  # type: ignore[return-value]


def to_run(values: dict[str, Any], command: str) -> Run:
    """Resolved values -> the command's dataclass, with lists where the schema takes one name or several, mappings as they are.

    Raises ConfigError with every unknown key, wrong value and missing setting.
    """
    root = ROOTS[command]
    problems = [text for key, value in values.items() for text in explain.setting(str(key), value, root, command)]
    if problems:
        raise ConfigError(*problems)
    try:
        config = OmegaConf.merge(OmegaConf.structured(root), dump.escape(values))
        missing = OmegaConf.missing_keys(config)
    except OmegaConfBaseException as error:
        raise ConfigError(explain.hydra_error(error, command)) from error
    if "predictions" in values and values["predictions"] is not None and "model.name" in missing:
        config.model.name, missing = "none", missing - {"model.name"}  # scored as they are
    if "run" in values and values["run"] is None and (missing or values["task"] == _defaults(command)["task"]):
        raise ConfigError(f"llmft {command} needs a run, run=latest or run=DIRECTORY, or a plain model: task=... model=...")
    if missing:
        raise ConfigError(*(f"{key}: needed, but not set. Add {key}=..." for key in sorted(missing)))
    run = OmegaConf.to_object(config)
    assert isinstance(run, Run), run
    for split in ("train", "validation", "test"):
        name = getattr(run.task.data, split)
        setattr(run.task.data, split, [name] if isinstance(name, str) else name)
    return run


def read_run(folder: Path) -> dict[str, Any]:
    """Values of a training run, from its config.yaml: values only, nothing in it is executed or resolved.

    Raises ConfigError if there is none, or if it holds anything that a training run does not have.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"run={folder}: found no config.yaml there, expected the directory of a training run.")
    try:
        problems = yaml_files.check(path, "", schema.TrainRun, "train")
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        raise ConfigError(explain.broken_yaml(error)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8. It is not what llmft wrote; name another run.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: found no settings, expected those of a training run. Name another run.")
    if "split" in values:
        raise ConfigError(
            f"run={folder}: an evaluation, not a training run. Name the run: {values.get('run') or 'a folder of llmft train'}"
        )
    if problems:
        raise ConfigError(*problems)
    return values


def from_run(values: dict[str, Any], named: Iterable[str], run_values: dict[str, Any], command: str) -> dict[str, Any]:
    """The settings of a training run, with the command line on top.

    values: what Hydra composed, resolved. named: keys that the command line names, a whole section included; they count
    even where they say what the schema says. Everything else counts where it differs from the schema's default.
    """
    defaults = _defaults(command)
    result = copy.deepcopy(defaults)
    for path, value in _leaves(
        {name: run_values[name] for name in defaults if name in run_values and name not in NOT_FROM_A_RUN}
    ):
        _put(result, path, value)
    explicit = [tuple(name.split(".")) for name in named]
    if ("task",) in explicit:  # another task as a whole: two tasks' data and metrics do not mix
        result["task"] = copy.deepcopy(defaults["task"])
    default_leaves = dict(_leaves(defaults))
    for path, value in _leaves(values):
        is_named = any(path[: len(name)] == name for name in explicit)
        if is_named or path not in default_leaves or default_leaves[path] != value:
            _put(result, path, value)
    return result


def _defaults(command: str) -> dict[str, Any]:
    values = OmegaConf.to_container(OmegaConf.structured(ROOTS[command]), enum_to_str=True)
    assert isinstance(values, dict), values
    return values  # type: ignore[return-value]


def _leaves(values: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Path and value of everything that is no mapping, or an empty one; parallel text files are one value."""
    for name, value in values.items():
        if isinstance(value, dict) and value and ".".join((*above, name)) not in settings.DATA:
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name), value


def _put(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        if not isinstance(values.get(name), dict):
            values[name] = {}
        values = values[name]
    if value != {} or not isinstance(values.get(path[-1]), dict):
        values[path[-1]] = copy.deepcopy(value)

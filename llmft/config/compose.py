"""From Hydra's DictConfig to the plain dataclasses that the rest of llmft sees."""

from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from llmft.config import schema, sources

ROOTS: dict[str, type] = {"train": schema.TrainRun, "eval": schema.EvalRun, "predict": schema.PredictRun}


class UserFolders(SearchPathPlugin):
    """Puts ./llmft_conf and the folders of installed packages behind the built-in ones; Hydra itself adds --config-dir."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in sources.user_folders(None):
            search_path.append("llmft-user", f"file://{folder}")


def register() -> None:
    """Tell Hydra the schema of each command and where users keep their YAML."""
    for command, root in ROOTS.items():
        ConfigStore.instance().store(group="schema", name=command, node=root, package="_global_", provider="llmft")
    Plugins.instance().register(UserFolders)

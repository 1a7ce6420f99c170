"""The folders that settings are read from: the built-in conf/, the user's folders, and those of installed packages.

Also imported by the help and by the completion, so nothing heavy at the top.
"""

from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from llmft.errors import ConfigError, LlmftError

PACKAGE = Path(__file__).resolve().parent.parent
USER_FOLDER = "llmft_conf"
ENTRY_POINT_GROUP = "llmft.conf"


def built_in() -> Path:
    """The folder of the built-in YAML: inside an installed package, or beside it in a checkout.

    Raises LlmftError if the installation has neither.
    """
    for folder in (PACKAGE / "conf", PACKAGE.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise LlmftError(
        f"{PACKAGE}: the folder conf/ with the built-in YAML is missing from this installation. Install llmft again."
    )


def user_folders(config_dir: str | None) -> list[Path]:
    """Folders searched after the built-in one: --config-dir, ./llmft_conf, packages with the entry point llmft.conf.

    Raises ConfigError if --config-dir is no folder, or an entry point names a package that is not there.
    """
    folders = []
    if config_dir is not None:
        if not Path(config_dir).is_dir():
            raise ConfigError(f"--config-dir {config_dir}: no such folder. Name a folder that holds YAML files.")
        folders.append(Path(config_dir))
    if Path(USER_FOLDER).is_dir():
        folders.append(Path(USER_FOLDER))
    for point in entry_points(group=ENTRY_POINT_GROUP):
        spec = find_spec(point.value)
        if spec is None or not spec.submodule_search_locations:
            raise ConfigError(
                f"entry point {ENTRY_POINT_GROUP}: {point.name} = {point.value}: no such package."
                " Repair or uninstall the distribution that declares it."
            )
        folders += [Path(place) for place in spec.submodule_search_locations]
    return [folder.resolve() for folder in folders]


def groups(folders: list[Path]) -> list[str]:
    """The groups, which are the sub-folders; Hydra's own not included."""
    found = {path.name for folder in folders for path in folder.iterdir() if path.is_dir() and any(path.glob("*.yaml"))}
    return sorted(found - {"hydra"})


def choices(group: str, folders: list[Path]) -> dict[str, Path]:
    """Choice -> file of a group such as task, or hydra/sweeper, over the given folders."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted((folder / group).glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


def find(name: str, folders: list[Path]) -> Path | None:
    """The file that a configuration such as task/summarization is read from; None for the schema and for Hydra's own."""
    name = name.removesuffix(".yaml")
    return next((folder / f"{name}.yaml" for folder in folders if (folder / f"{name}.yaml").is_file()), None)


def check_shadowing(folders: list[Path]) -> None:
    """Refuse two files of the same name: Hydra would silently read the first only.

    Raises ConfigError with all such pairs.
    """
    first: dict[str, Path] = {}
    problems = []
    places = list(dict.fromkeys([built_in(), *folders]))
    for folder in places:
        for name in sorted(name for name in first if (folder / name).is_file()):
            problems.append(f"{folder / name}: {first[name]} has the same name and would be read instead. Rename your file.")
        if folder != places[-1]:  # the last is not listed: it may be a home folder, or a whole disk
            for path in folder.rglob("*.yaml"):
                first.setdefault(path.relative_to(folder).as_posix(), path)
    if problems:
        raise ConfigError(*problems)


def not_utf8(folders: list[Path]) -> list[Path]:
    """The YAML files that cannot be read as UTF-8."""
    found = []
    for path in (path for folder in folders for path in sorted(folder.rglob("*.yaml"))):
        try:
            path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            found.append(path)
    return found

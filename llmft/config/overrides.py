"""The settings of a command line, checked against the schema before Hydra composes anything: all that is wrong at once."""

import re
from itertools import islice
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, OverrideType, RangeSweep
from hydra.errors import HydraException
from omegaconf import OmegaConf

from llmft.config import explain, hydra_keys, settings, sources
from llmft.config.secrets import describe, redact

MOST_VALUES = 1000
"""Values of one sweep that are checked; a longer one is cut short here, not in the sweep."""


def check(words: list[str], root: type, command: str, multirun: bool, folders: list[Path]) -> list[str]:
    """What is wrong with the settings of a command line, one sentence each.

    words: quoted for Hydra's grammar; folders: where YAML is looked for, the built-in folder first.
    """
    problems = []
    for word in words:
        if what := describe(word):
            named = redact(word.partition("=")[0])
            problems.append(f"{named}: {what}, which would be written into the run. Keep it in the environment alone.")
            continue
        if "=" not in word and not word.startswith("~"):
            problems.append(f"{_readable(word)}: not a setting. Settings are written key=value; flags begin with a dash.")
            continue
        try:
            override = OverridesParser.create().parse_override(word)
            values(override)
        except (HydraException, ValueError, TypeError, RecursionError):
            name, _, value = word.partition("=")
            name = _readable(name)
            problems.append(
                f"{name}: cannot read the value {value!r}. Close every bracket and quote, and end no list with a comma;"
                f" a text with such signs goes in double quotes inside single ones: '{name}=\"...\"'"
            )
            continue
        if override.is_sweep_override() and not multirun:
            key = word.lstrip("+").partition("=")
            problems.append(
                f"{key[0]}: several values ({key[2]}) make a sweep, which needs -m."
                f" For a list write {key[0]}=[{key[2]}]; for a comma inside one value '{key[0]}=\"{key[2]}\"'"
            )
            continue
        if isinstance(override.value(), IntervalSweep) and not any(other.startswith("hydra/sweeper=") for other in words):
            problems.append(
                f"{word}: an interval has no values to go through one by one. Let hydra/sweeper=search draw from it, or list values."
            )
            continue
        problems += _check_one(override, root, command, folders)
    return problems


def _readable(text: str) -> str:
    """Text in a sentence: in quotes where it would be nothing to see, or tear the sentence apart."""
    return text if text.isprintable() and text.strip() else repr(text)


def _check_one(override: Override, root: type, command: str, folders: list[Path]) -> list[str]:
    key = override.key_or_group
    kind = settings.find_type(root, key)
    if key.split(".")[0].split("/")[0] == "hydra":
        return hydra_keys.check(key, "the command line") or [
            f"{key}: {problem}" for value in values(override) for problem in hydra_keys.check_plain(value)
        ]
    group = is_group(key, root, folders)
    if override.type == OverrideType.DEL:
        if group or settings.is_entry(root, key):
            return []
        what = "give it another value" if kind else f"llmft {command} --help shows what there is"
        return [f"~{key}: only groups and entries such as task.metrics.rouge can be left out; {what}."]
    if group and not any(isinstance(value, dict) for value in values(override)):
        return _check_choices(override, key, folders)
    if kind is None:
        if key in sources.groups(folders[:1]):
            return [f"{key}: llmft {command} has no {key}, that belongs to llmft train. Leave it out."]
        return [explain.unknown_key(key, root, command)]
    return [problem for value in values(override) for problem in explain.setting(key, value, root, command)]


def _check_choices(override: Override, group: str, folders: list[Path]) -> list[str]:
    known = sources.choices(group, folders)
    if None in values(override):
        return [f"{group}=null: found null, expected one of {', '.join(sorted(known))}; to choose none, leave {group}= out."]
    names = [name for value in values(override) for name in (value if isinstance(value, list) else [value])]
    wrong = [name for name in names if str(name).removesuffix(".yaml") not in known]
    return [explain.unknown_choice(group, str(name), known) for name in dict.fromkeys(wrong) if "${" not in str(name)]


def is_group(key: str, root: type, folders: list[Path]) -> bool:
    """True if key=... chooses a file: a section of the command, experiment, or a folder of the user's own."""
    if not re.fullmatch(r"[\w/-]+", key) or key.split("/")[0] in ("hydra", "schema"):
        return False
    places = [folder for folder in folders if (folder / key).is_dir()]
    ours = folders[0] in places
    return bool(places) and (not ours or key == "experiment" or settings.find_type(root, key) is not None)


def values(override: Override) -> list[Any]:
    """Every value that an override stands for: one, or those of a sweep (of an interval, its ends)."""
    value = override.value()
    if isinstance(value, IntervalSweep):
        return _ends(value)
    if isinstance(value, ChoiceSweep | RangeSweep):
        texts = islice(override.sweep_string_iterator(), MOST_VALUES)
        return [OverridesParser.create().parse_override(f"key={text}").value() for text in texts]
    return [] if isinstance(value, Glob) else [value]


def _ends(interval: IntervalSweep) -> list[Any]:
    """Hydra reads interval(4,64) as 4.0 and 64.0; for a setting that is a whole number the search draws whole numbers."""
    return [int(end) if end is not None and float(end).is_integer() else end for end in (interval.start, interval.end)]


def named_keys(words: list[str], root: type, folders: list[Path]) -> list[str]:
    """The keys that a command line names: of a chosen file, what stands in it; of a chosen task, the whole section."""
    keys = []
    for word in words:
        override = OverridesParser.create().parse_override(word)
        key = override.key_or_group
        if key == "task" or not is_group(key, root, folders):
            keys.append(key)
        elif path := sources.choices(key, folders).get(str(override.value())):
            content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
            assert isinstance(content, dict), path
            keys += [f"{key}.{name!s}" for name in content if key != "experiment" and name != "defaults"]
    return keys


def to_try(words: list[str], folders: list[Path]) -> list[list[str]]:
    """The settings with each sweep cut to its first value, to try whether they compose.

    Of a sweep over files each one is tried, so that none is read whose content nobody has checked.
    """
    found: list[list[str]] = [[]]
    for word in words:
        override = OverridesParser.create().parse_override(word)
        several = [word]
        if override.is_sweep_override():
            value, key = override.value(), override.get_key_element()
            if isinstance(value, Glob):
                texts = sorted(value.filter(list(sources.choices(override.key_or_group, folders))))
            elif isinstance(value, IntervalSweep):
                texts = [str(_ends(value)[0])]
            else:
                files = any((folder / override.key_or_group).is_dir() for folder in folders)
                texts = list(islice(override.sweep_string_iterator(), MOST_VALUES if files else 1))
            several = [f"{key}={text}" for text in texts]
        first, *others = several or [""]
        found = [[*tried, first] for tried in found] + [[*found[0], other] for other in others]
    return [[word for word in tried if word] for tried in found]

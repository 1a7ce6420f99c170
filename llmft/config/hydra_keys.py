"""Which of Hydra's own settings a user may change: the sweeper, the launcher and their plain values, and hydra.verbose.

The rest decides where files go and which code Hydra runs; both are ours. Hydra's own block-list can be passed.
"""

import re
from collections.abc import Iterator
from typing import Any

ALLOWED = re.compile(r"hydra/(sweeper|launcher)|hydra\.(sweeper|launcher)(\.[a-zA-Z0-9]\w*)+|hydra\.verbose")

INSTEAD = {
    "hydra.sweep": "The folder of a sweep is made below output_root=...",
    "hydra.run": "The folder of a run is output_dir=...",
    "hydra.output_subdir": "A run directory has its own config.yaml.",
    "hydra.job.chdir": "Runs stay in the folder they are started in.",
    "hydra.mode": "Use -m for a sweep.",
    "hydra.searchpath": "Use --config-dir, or a folder llmft_conf.",
}


def check(key: str, where: str) -> list[str]:
    """Say that a key of Hydra's (hydra.sweep.dir, hydra/launcher) is not open to users; empty if it is."""
    if ALLOWED.fullmatch(key):
        return []
    instead = next((text for start, text in INSTEAD.items() if key == start or key.startswith(f"{start}.")), None)
    return [f"{key}: cannot be set from {where}; of Hydra's own settings only hydra/launcher, hydra/sweeper, hydra.launcher.*,"
            f" hydra.sweeper.* and hydra.verbose can. {instead or 'Leave it out.'}"]  # fmt: skip


def check_plain(value: Any) -> list[str]:
    """Refuse `_target_` and its like anywhere in a value: settings are values, code is named by `call`."""
    return [
        f"found {name}: settings are plain values. Name a function by `call: package.function`, with its package in `plugins`"
        for name in _names(value)
        if re.fullmatch(r"_\w+_", name)
    ]


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield str(name)
            yield from _names(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _names(inner)

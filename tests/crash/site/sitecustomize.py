"""Brings the laboratory's hooks into a real command line: Python imports this file at its start if PYTHONPATH names the folder.

torch is not imported for it: the hooks are put in place once the command has imported torch's optimizers.
"""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

AWAITED = "torch.optim.optimizer"


class AfterTorch:
    """A finder that finds nothing but the awaited module, and installs the hooks behind its import."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        """Let the other finders find the module; run the hooks after its code."""
        if name != AWAITED:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec
        assert spec.loader
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            import crash_hooks

            crash_hooks.install()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, AfterTorch())  # type: ignore[arg-type]

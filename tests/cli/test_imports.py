import gc
import subprocess
import sys

import pytest

from llmft.cli.imports import uncollected

COUNTED = """
import gc
from llmft.cli.imports import uncollected

rounds = []
gc.callbacks.append(lambda phase, info: rounds.append(info["generation"]))
with uncollected("{module}"):
    made = [[] for _ in range(100_000)]  # the collector would come by 140 times
    print(len(rounds), gc.isenabled())
print(gc.isenabled(), gc.get_freeze_count() > 100_000)
"""


@pytest.mark.parametrize(
    ("module", "expected"),
    [("torch", ["0 False", "True True"]), ("sys", ["True", "True False"])],  # the second is imported already
)
def test_the_collector_does_not_look_at_what_imports_make(module, expected):
    told = subprocess.run([sys.executable, "-c", COUNTED.format(module=module)], capture_output=True, text=True, check=True)
    first, last = told.stdout.splitlines()
    assert first.endswith(expected[0])
    assert (first == expected[0]) == (module == "torch")
    assert last == expected[1]


def test_it_comes_back_after_an_import_that_fails():
    try:
        with pytest.raises(ImportError), uncollected("no_such_module"):
            import no_such_module  # noqa: F401
        assert gc.isenabled()
    finally:
        gc.unfreeze()


def test_a_collector_that_is_switched_off_stays_so():
    gc.disable()
    try:
        with uncollected("no_such_module"):
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()

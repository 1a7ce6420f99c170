"""The table of names from other trainers points at settings that exist, and hides none of ours."""

import pytest

from llmft.config import aliases, settings
from llmft.config.compose import ROOTS


@pytest.mark.parametrize("name", aliases.HERE)
def test_every_row_points_at_a_setting(name):
    here = aliases.HERE[name].split("=")[0]
    assert any(settings.find_type(root, here) is not None for root in ROOTS.values())
    assert name != here


@pytest.mark.parametrize("name", [*aliases.HERE, *aliases.EXPLAINED])
def test_no_row_stands_for_a_setting_of_train(name):
    assert settings.find_type(ROOTS["train"], name) is None


def test_no_name_has_two_meanings():
    assert not aliases.HERE.keys() & aliases.EXPLAINED.keys()
    assert len(aliases.HERE) > 60

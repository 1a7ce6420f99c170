import math

import pytest

from llmft.reports import units


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (1536 << 20, "1.5 GiB"), (300 << 30, "300 GiB"), (None, "-")],
)
def test_memory(num_bytes, text):
    assert units.memory_text(num_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.7, "1 min 0 s"),
        (61, "1 min 1 s"),
        (3599.6, "1 h 0 min"),
        (3724, "1 h 2 min"),
        (180000, "2 d 2 h"),
        (math.inf, "-"),
    ],
)
def test_duration(seconds, text):
    assert units.duration_text(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(12480, "12,480"), (41300.4, "41,300"), (2e-4, "0.0002"), (3.0, "3"), (math.nan, "-")]
)
def test_count(value, text):
    assert units.count_text(value) == text


def test_numbers_of_one_row_agree_in_decimals():
    assert units.score_text(31.2) == "31.20"
    assert units.score_text(1.6) == "1.600"
    assert units.score_text(0.5, like=31.2, sign=True) == "+0.50"
    assert units.interval_text(-0.25, 12.0, like=31.2) == "[-0.25, 12.00]"
    assert units.interval_text(None, None) == ""


def test_a_bootstrap_p_is_never_shown_as_zero():
    assert units.p_text(0.0) == "<0.001"
    assert units.p_text(0.0314) == "0.031"


@pytest.mark.parametrize(
    ("key", "value", "name", "text"),
    [
        ("peak_memory_bytes", 2 << 30, "peak memory", "2.0 GiB"),
        ("seconds", 90, "time", "1 min 30 s"),
        ("warmup_seconds", 5.0, "warmup", "5.0 s"),
        ("fast_path", True, "fast path", "yes"),
        ("files", ["a", "b"], "files", "a, b"),
        ("limit", None, "limit", "-"),
        ("device", "cpu", "device", "cpu"),
    ],
)
def test_plan_entries_carry_their_unit_in_the_name(key, value, name, text):
    assert (units.entry_name(key), units.entry_text(key, value)) == (name, text)

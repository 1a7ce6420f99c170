"""Numbers as people read them: bytes, durations, counts and scores."""

import math
from typing import Any

MISSING = "-"
"""Stands where a number is missing or not finite."""


def memory_text(num_bytes: float | None) -> str:
    """1536 MiB as `1.5 GiB`."""
    if num_bytes is None:
        return MISSING
    if num_bytes < 1024:
        return f"{num_bytes:.0f} bytes"
    size, unit = num_bytes / 1024, "KiB"
    for larger in ("MiB", "GiB"):
        if size >= 1000:
            size, unit = size / 1024, larger
    return f"{size:.1f} {unit}" if size < 100 else f"{size:.0f} {unit}"


def duration_text(seconds: float | None) -> str:
    """3724 s as `1 h 2 min`: the two largest parts that matter."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def count_text(value: float | None) -> str:
    """Counts with thousands separators; four significant digits below 1000 where not whole."""
    if value is None or not math.isfinite(value):
        return MISSING
    if float(value).is_integer() or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def score_text(value: float | None, like: float | None = None, sign: bool = False) -> str:
    """Two decimals, three below 10; `like`: as many as that value gets, so that one row of a table agrees."""
    if value is None or not math.isfinite(value):
        return MISSING
    scale = value if like is None or not math.isfinite(like) else like
    decimals = 2 if abs(scale) >= 10 else 3
    return f"{value:+.{decimals}f}" if sign else f"{value:.{decimals}f}"


def interval_text(low: float | None, high: float | None, like: float | None = None) -> str:
    """`[30.10, 32.40]`, or nothing where there is no interval."""
    return "" if low is None or high is None else f"[{score_text(low, like)}, {score_text(high, like)}]"


def p_text(p: float | None) -> str:
    """A p-value; the smallest are shown as a bound, because a bootstrap cannot resolve them."""
    if p is None:
        return MISSING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def entry_text(key: str, value: Any) -> str:
    """One named value of a plan; its unit is in the name's ending: _bytes, _s, _seconds."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    if not isinstance(value, int | float):
        return MISSING if value is None else str(value)
    if key.endswith("_bytes"):
        return memory_text(value)
    if key == "seconds" or key.endswith(("_s", "_seconds")):
        return duration_text(value)
    return count_text(value)


def entry_name(key: str) -> str:
    """The name of such a value without its unit: `peak_memory_bytes` as `peak memory`."""
    if key == "seconds":
        return "time"
    return key.removesuffix("_bytes").removesuffix("_s").removesuffix("_seconds").replace("_", " ")

"""What the service itself says of a round: its /metrics before and after, and the means between them."""

from __future__ import annotations

import re
import urllib.request
from typing import Any

_SAMPLE = re.compile(
    r"^clearinghouse_(stage_seconds|commit_seconds|commit_rows)_(sum|count)(?:\{stage=\"(\w+)\"\})? (\S+)$"
)

Readings = dict[tuple[str, str], tuple[float, float]]


def read(http_url: str) -> Readings:
    """(metric, stage) to (sum, count) so far."""
    with urllib.request.urlopen(f"{http_url}/metrics", timeout=10) as response:
        text = response.read().decode()
    found: dict[tuple[str, str], dict[str, float]] = {}
    for line in text.splitlines():
        if match := _SAMPLE.match(line):
            metric, part, stage, value = match.groups()
            found.setdefault((metric, stage or ""), {})[part] = float(value)
    return {key: (parts["sum"], parts["count"]) for key, parts in found.items()}


def means(before: Readings, after: Readings) -> dict[str, Any]:
    """Mean wall time of each stage in µs (it includes waiting for a turn on the event loop), and the commits."""
    result: dict[str, Any] = {"stage_us": {}}
    for (metric, stage), (total, count) in after.items():
        total_before, count_before = before.get((metric, stage), (0.0, 0.0))
        if count == count_before:
            continue
        mean = (total - total_before) / (count - count_before)
        if metric == "stage_seconds":
            result["stage_us"][stage] = mean * 1e6
        elif metric == "commit_seconds":
            result["commit_us"] = mean * 1e6
        else:
            result["commit_rows"] = mean
    return result

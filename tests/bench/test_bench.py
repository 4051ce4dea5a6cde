"""The benchmark itself: that its arithmetic is right, and that a short run goes through with the books in order."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.jobs import percentile
from tests.bench.processes import ROOT, clean_environment
from tests.bench.report import Target
from tests.bench.scenarios import SCENARIOS, chosen


def test_a_percentile_is_the_nearest_rank() -> None:
    hundred = list(range(1, 101))
    assert [percentile(hundred, percent) for percent in (1, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([7], 99) == percentile([7], 1) == 7
    assert percentile([1, 2, 3], 50) == 2


@pytest.mark.parametrize(
    ("is_at_most", "measured", "verdict"),
    [
        (True, 199.0, "reached"),
        (True, 200.0, "reached"),
        (True, 201.0, "MISSED"),
        (False, 201.0, "reached"),
        (False, 200.0, "reached"),
        (False, 199.0, "MISSED"),
        (True, None, "not measured"),
    ],
)
def test_a_target_is_judged_by_its_side_of_the_bound(is_at_most: bool, measured: float | None, verdict: str) -> None:
    assert Target("CPU", 200, is_at_most, measured, "µs").verdict == verdict


def test_a_misspelled_scenario_is_named() -> None:
    with pytest.raises(ValueError, match=r"unknown: hott; known are .*hot"):
        chosen(["direct", "hott"])


@pytest.mark.slow
def test_a_short_run_measures_everything_and_its_answers_are_those_in_the_ledger(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    short = ["--rounds", "1", "--seconds", "0.3", "--warm-up", "0.1", "--callers", "4", "--accounts", "5"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", *short, "--json", str(file)],
        cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    measured = json.loads(file.read_text(encoding="utf-8"))
    assert set(measured["summary"]) == {scenario.name for scenario in SCENARIOS}
    assert measured["ledger"]["issuances"] == measured["ledger"]["tickets"] > 10
    assert all(target["verdict"] != "not measured" for target in measured["targets"])
    assert measured["summary"]["accounts"]["cpu_us"]["service"] > 10

"""Workers on machines whose clocks are wrong: the database's judges what is due, for jobs and for what they do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.parts.watched_workers import Watched
from tests.parts.worker_process import WorkerProcess
from tests.settlement.conftest import Owner

pytestmark = pytest.mark.timeout(120)

HOUR_S = 3600


@contextmanager
def wrong_by(database: str, periods: Owner, folder: Path, *wrong_by_s: float) -> Iterator[Watched]:
    made = [
        WorkerProcess(database, folder / f"worker-{number}.log", clock_wrong_by_s=by_s)
        for number, by_s in enumerate(wrong_by_s)
    ]
    try:
        yield Watched(periods, made, database, folder)
    finally:
        for each in made:
            each.kill()


@pytest.mark.parametrize("by_s", [-HOUR_S - 0.5, HOUR_S + 0.5])
def test_a_worker_whose_clock_is_wrong_does_everything_at_its_time(
    database: str, periods: Owner, tmp_path: Path, by_s: float
) -> None:
    with wrong_by(database, periods, tmp_path, by_s) as one:
        one.wait_for_rows(6)
        one.require_each_once()
    off_s = periods.execute(
        "SELECT max(abs(extract(epoch FROM now() - started_at))), min(extract(epoch FROM started_at - due_at)),"
        " count(*) FILTER (WHERE outcome = 'ok') FROM job_run WHERE id > 1"
    ).fetchone()
    assert off_s is not None
    assert off_s[0] < 60, "it is recorded with the time of the database"
    assert off_s[1] < 0.4, "it is struck with the second of the database, not half of one later"
    assert "clock_was_ahead" not in one.made[0].log


def test_where_leaders_have_different_clocks_nothing_waits_and_nothing_is_done_twice(
    database: str, periods: Owner, tmp_path: Path
) -> None:
    with wrong_by(database, periods, tmp_path, HOUR_S, -HOUR_S) as two:
        two.wait_for_rows(2)
        for _ in range(4):
            fell = two.wait_for_leader()
            two.changes(WorkerProcess.kill)
            two.made.remove(fell)
            by_s = HOUR_S if fell.log_file.name == "worker-0.log" else -HOUR_S
            two.made.append(WorkerProcess(database, fell.log_file, clock_wrong_by_s=by_s))
            two.wait_for_rows(1)
        two.wait_for_rows(2)
        two.require_each_once()
        (newest_age_s,) = periods.execute("SELECT extract(epoch FROM now() - max(due_at)) FROM period").fetchone() or ()
        assert -1 < newest_age_s < 30

"""Workers as processes of their own over one database, and what can befall them: none of a job's work is lost or done
twice, and another leads within 10 s.

The job (tests/parts/worker_process.py) writes one row for each second; it reads what is there, waits, then writes.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from clearinghouse.database.embedded import EmbeddedPostgres
from clearinghouse.database.migrate import migrate
from tests.parts.program import new_home
from tests.parts.watched_workers import BUSY, LEADER_CHANGE_MAX_S, Watched, watched
from tests.parts.worker_process import PERIODS, workers
from tests.settlement.conftest import Owner

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FAULTS = 8
_SEED = time.time_ns()


@pytest.fixture
def two(database: str, periods: Owner, tmp_path: Path) -> Iterator[Watched]:
    with watched(database, tmp_path, periods) as found:
        found.wait_for_leader()
        found.wait_for_rows(1)
        yield found


def test_leaders_that_are_killed_at_random_moments_lose_nothing_and_do_nothing_twice(two: Watched) -> None:
    chance = random.Random(_SEED)
    for _ in range(FAULTS):
        time.sleep(chance.random() * 2)
        killed = two.wait_for_leader()
        two.changes(lambda leader: leader.signal(signal.SIGKILL))
        two.replace(killed)
    two.wait_for_rows(2)
    two.require_each_once()
    print(f"leader changes after kill -9: {[round(each, 2) for each in two.changes_s]} s")
    assert max(two.changes_s) <= LEADER_CHANGE_MAX_S * BUSY
    lost = two.owner.execute("SELECT count(*) FROM job_run WHERE outcome = 'lost'").fetchone()
    print(f"runs cut off: {lost}")


def test_a_leader_that_is_stopped_and_goes_on_later_does_nothing_twice(two: Watched) -> None:
    """The paused leader: it has read what is to do, and believes when it wakes up that it still leads."""
    chance = random.Random(_SEED)
    for _ in range(FAULTS // 2):
        time.sleep(chance.random() * 2)
        stopped = two.wait_for_leader()
        two.changes(lambda leader: leader.signal(signal.SIGSTOP))
        two.wait_for_rows(1)
        stopped.signal(signal.SIGCONT)
        time.sleep(chance.random())
    two.wait_for_rows(3)
    two.require_each_once()
    print(f"leader changes after SIGSTOP: {[round(each, 2) for each in two.changes_s]} s")
    assert max(two.changes_s) <= LEADER_CHANGE_MAX_S * BUSY


def test_a_leader_that_is_told_to_stop_finishes_and_another_leads(two: Watched) -> None:
    stopped = two.wait_for_leader()
    two.changes(lambda leader: leader.signal(signal.SIGTERM))
    assert stopped.wait() == 0
    assert '"reason": "told to stop"' in stopped.log
    two.wait_for_rows(5)
    two.require_each_once()
    assert max(two.changes_s) <= LEADER_CHANGE_MAX_S * BUSY
    assert two.owner.execute("SELECT count(*) FROM job_run WHERE outcome = 'lost'").fetchone() == (0,)


def test_when_the_database_dies_and_comes_back_nothing_is_lost_or_done_twice() -> None:
    with new_home() as home:
        postgres = EmbeddedPostgres(home.data_dir)
        database = postgres.start()
        migrate(database.conninfo)
        with psycopg.connect(database.conninfo, autocommit=True) as owner:
            owner.execute(PERIODS)
        with workers(database.conninfo, home.folder, 2) as made:
            for _ in range(3):
                with psycopg.connect(database.conninfo, autocommit=True) as owner:
                    two = Watched(owner, made, database.conninfo, home.folder)
                    two.wait_for_leader()
                    two.wait_for_rows(2)
                home.kill_database()
                time.sleep(1)
                assert postgres.ensure_running()
                back_s = time.monotonic()
                with psycopg.connect(database.conninfo, autocommit=True) as owner:
                    Watched(owner, made, database.conninfo, home.folder).wait_for_leader()
                assert time.monotonic() - back_s <= LEADER_CHANGE_MAX_S * BUSY
            with psycopg.connect(database.conninfo, autocommit=True) as owner:
                two = Watched(owner, made, database.conninfo, home.folder)
                two.wait_for_rows(2)
                two.require_each_once()
        postgres.stop()

"""`make restarts`: a thousand times the worker that leads is killed, told to stop, or stopped for a while, at random.

python -m tests.restarts        RESTARTS=1000 unless told otherwise; RESTARTS_SEED replays one

Over a server of its own. What is counted are the seconds for which the job wrote no row, or more than one.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from clearinghouse.database.embedded import EmbeddedPostgres
from tests.conftest import fresh_database, prepared_template
from tests.parts.watched_workers import LEADER_CHANGE_MAX_S, Watched, watched
from tests.parts.worker_process import NOT_ONCE, PERIODS

#: So that one stands by while another begins.
_WORKERS_COUNT = 3
#: A stopped one is noticed after 5 s, so that it is a tenth of them.
_FAULTS = (signal.SIGKILL,) * 8 + (signal.SIGTERM, signal.SIGSTOP)
_REPORT_EVERY_COUNT = 25


@contextmanager
def _workers() -> Iterator[Watched]:
    with tempfile.TemporaryDirectory(prefix="restarts-") as folder, EmbeddedPostgres(Path(folder) / "data") as server:
        template = prepared_template(server)
        with (
            fresh_database(server, template, "restarts") as conninfo,
            psycopg.connect(conninfo, autocommit=True) as owner,
        ):
            owner.execute(PERIODS)
            with watched(conninfo, Path(folder), owner, count=_WORKERS_COUNT) as made:
                made.wait_for_rows(1)
                yield made


def _restart(workers: Watched, chance: random.Random) -> signal.Signals:
    """One fault at a random moment; the process is replaced, one that was stopped after it has gone on for a while."""
    time.sleep(chance.random() * 1.2)
    fault, leader = chance.choice(_FAULTS), workers.wait_for_leader()
    workers.changes(lambda each: each.signal(fault))
    if fault is signal.SIGSTOP:
        leader.signal(signal.SIGCONT)
        time.sleep(chance.random())
    workers.replace(leader)
    return fault


def main() -> int:
    """0 where nothing was lost or done twice, and nobody waited longer for a leader than promised."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    count = int(os.environ.get("RESTARTS", "1000"))
    seed = int(os.environ.get("RESTARTS_SEED", time.time_ns()))
    chance, faults = random.Random(seed), Counter[str]()
    print(f"{count} restarts, seed {seed}", flush=True)
    with _workers() as workers:
        for done in range(1, count + 1):
            faults[_restart(workers, chance).name] += 1
            if done % _REPORT_EVERY_COUNT == 0 or done == count:
                print(f"{done} restarts, {workers.rows()} seconds, {_changes(workers)}", flush=True)
        workers.wait_for_rows(2)
        wrong = workers.owner.execute(NOT_ONCE).fetchall()
        lost = workers.owner.execute("SELECT count(*) FROM job_run WHERE outcome = 'lost'").fetchone()
        print(f"{dict(faults)}; runs that were cut off: {lost and lost[0]}; {_changes(workers)}")
        print(f"{workers.rows()} seconds; missed: {_count(wrong, 0)}, more than once: {len(wrong) - _count(wrong, 0)}")
        return int(bool(wrong) or max(workers.changes_s) > LEADER_CHANGE_MAX_S)


def _changes(workers: Watched) -> str:
    took_s = workers.changes_s
    return f"a new leader after {statistics.median(took_s):.2f} s in the median, {max(took_s):.2f} s at most"


def _count(wrong: list[tuple[object, ...]], rows: int) -> int:
    return sum(count == rows for _, count in wrong)


if __name__ == "__main__":
    sys.exit(main())

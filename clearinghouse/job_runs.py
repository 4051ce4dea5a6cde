"""The record of what is done on a schedule: which jobs there are, how their last runs went, and what is late.

Jobs are run, and these rows written, by `clearinghouse work`; here they are read, by whoever wants to know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.instants import rfc3339

#: Of hashtextextended(…, 0): the advisory lock of the one process that leads.
LEAD: Final = "job lead"
#: What a change of the leader takes, and a busy machine, with room: 10 s.
_GRACE_S: Final = 60
#: A rare job is not rare in being late: however seldom it runs, this much later it is.
_LATENESS_MAX_S: Final = 600
#: Further ahead no run is due that counts: as begin_job_run has it (migrations/sql/0001_jobs.sql).
_CLOCKS_DIFFER_MAX: Final = timedelta(minutes=10)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Outcome(StrEnum):
    """How a run ended."""

    OK = "ok"
    FAILED = "failed"
    #: Its process ended, or was given up, before it did: it does not count, the job is still due.
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Times:
    """Due once in every `every_s` seconds: at whole multiples of it since 1970, plus `offset_s`, UTC."""

    every_s: int
    offset_s: int = 0

    def due_at(self, now: datetime) -> datetime:
        """The newest time at which it was due."""
        late_by_s = (now - _EPOCH - timedelta(seconds=self.offset_s)) % timedelta(seconds=self.every_s)
        return now - late_by_s

    def next_at(self, now: datetime) -> datetime:
        """The first time after `now` at which it is due."""
        return self.due_at(now) + timedelta(seconds=self.every_s)


@dataclass(frozen=True, slots=True)
class Run:
    """One run; not ended where `outcome` is None. `error_kind` does not change with the words of `error`."""

    id: int
    job: str
    due_at: datetime
    started_at: datetime
    ended_at: datetime | None
    outcome: Outcome | None
    said: str | None
    error_kind: str | None
    error: str | None
    leader: str
    by_hand: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """A job and how it does. `failures_count` are those in a row, up to now; lost runs are none."""

    name: str
    times: Times
    registered_at: datetime
    running: Run | None
    last: Run | None
    last_ok: Run | None
    failures_count: int

    def late(self, now: datetime) -> str | None:
        """What is late, in one sentence; None where nothing is."""
        return late(self.times, self.registered_at, self.running or self.last, now)


@dataclass(frozen=True, slots=True)
class Lead:
    """Who leads, or led last."""

    leader: str
    since: datetime
    is_held: bool


def late(times: Times, registered_at: datetime, newest: Run | None, now: datetime) -> str | None:
    """What is late, in one sentence: a run that should have begun, or one that does not end; None where nothing is.

    `newest` is the newest run that was not lost. A run may take as long as there is between two, and ten minutes in any
    case; one may begin as much later as there is between two, and ten minutes at most. A minute is added to both.
    """
    if newest is not None and newest.due_at - now > _CLOCKS_DIFFER_MAX:
        return f"last ran for {rfc3339(newest.due_at)}, which is yet to come: a clock is wrong"
    if newest is not None and newest.ended_at is None:
        end_by = newest.started_at + timedelta(seconds=max(times.every_s, _LATENESS_MAX_S) + _GRACE_S)
        return f"has been running since {rfc3339(newest.started_at)}" if now > end_by else None
    due_at = times.next_at(newest.due_at) if newest is not None else times.next_at(registered_at)
    begin_by = due_at + timedelta(seconds=min(times.every_s, _LATENESS_MAX_S) + _GRACE_S)
    return f"was due at {rfc3339(due_at)}" if now > begin_by else None


_RUN: Final = """
    run.id, run.job, run.due_at, run.started_at, run.ended_at, run.outcome, run.said, run.error_kind, run.error,
    run.leader, run.by_hand
"""
#: The newest run of every job, of those with some outcome; the index has them in this order. By when it began, and not
#: by what it was due for: a clock may have been ahead.
_NEWEST: Final = f"""
    SELECT {_RUN} FROM job CROSS JOIN LATERAL (
        SELECT * FROM job_run WHERE job_run.job = job.name AND {{condition}} ORDER BY id DESC LIMIT 1
    ) AS run
"""  # noqa: S608
_FAILURES: Final = """
    SELECT job.name, count(*) AS failures FROM job JOIN job_run ON job_run.job = job.name
     WHERE job_run.outcome = 'failed' AND job_run.id > coalesce((
        SELECT id FROM job_run AS good
         WHERE good.job = job.name AND good.outcome = 'ok' ORDER BY id DESC LIMIT 1
     ), 0) GROUP BY 1
"""
_LEAD: Final = """
    SELECT leader, since, EXISTS (
        SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
           AND (classid::bigint << 32 | objid::bigint) = hashtextextended(:lead, 0)
    ) AS is_held FROM job_lead
"""


async def standings(connection: AsyncConnection) -> list[Standing]:
    """Of every job that is registered, by name."""
    running = await _newest(connection, "ended_at IS NULL")
    last = await _newest(connection, "outcome IN ('ok', 'failed')")
    last_ok = await _newest(connection, "outcome = 'ok'")
    failures = {row.name: row.failures for row in await connection.execute(text(_FAILURES))}
    jobs = await connection.execute(text("SELECT name, every_s, offset_s, registered_at FROM job ORDER BY name"))
    return [
        Standing(
            name, Times(every_s, offset_s), registered_at, running.get(name), last.get(name), last_ok.get(name),
            failures.get(name, 0),
        )
        for name, every_s, offset_s, registered_at in jobs
    ]  # fmt: skip


async def lead(connection: AsyncConnection) -> Lead | None:
    """None where nobody ever led."""
    row = (await connection.execute(text(_LEAD), {"lead": LEAD})).first()
    return Lead(row.leader, row.since, row.is_held) if row is not None else None


async def _newest(connection: AsyncConnection, condition: str) -> dict[str, Run]:
    rows = await connection.execute(text(_NEWEST.format(condition=condition)))
    return {row.job: run_of(row) for row in rows}


def run_of(row: Sequence[Any]) -> Run:
    """Of the columns of job_run, in the order of `Run`."""
    id_, job, due_at, started_at, ended_at, outcome, *rest = row
    return Run(id_, job, due_at, started_at, ended_at, Outcome(outcome) if outcome is not None else None, *rest)


def jobs_document(items: Sequence[Standing], leads: Lead | None, now: datetime) -> dict[str, Any]:
    """What commands and the API show."""
    return {
        "leader": leads.leader if leads is not None and leads.is_held else None,
        "leads_since": rfc3339(leads.since) if leads is not None and leads.is_held else None,
        "items": [_document(each, now) for each in items],
    }


def _document(standing: Standing, now: datetime) -> dict[str, Any]:
    running = standing.running
    return {
        "name": standing.name,
        "every_s": standing.times.every_s,
        "next_at": rfc3339(standing.times.next_at(now)),
        "running_since": rfc3339(running.started_at) if running is not None else None,
        "last": run_document(standing.last) if standing.last is not None else None,
        "last_ok_at": rfc3339(standing.last_ok.started_at) if standing.last_ok is not None else None,
        "failures_count": standing.failures_count,
        "late": standing.late(now),
    }


def run_document(run: Run) -> dict[str, Any]:
    """One run that has ended."""
    assert run.ended_at is not None
    assert run.outcome is not None
    return {
        "outcome": run.outcome.value,
        "started_at": rfc3339(run.started_at),
        "ended_at": rfc3339(run.ended_at),
        "duration_ms": round((run.ended_at - run.started_at) / timedelta(milliseconds=1)),
        "said": run.said,
        "error_kind": run.error_kind,
        "error": run.error,
        "by_hand": run.by_hand,
        "leader": run.leader,
    }

"""The worker: whether one leads, whether its jobs go well, and whether what it tells people arrives.

A database that cannot be used is the database's finding, and none here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from psycopg.conninfo import make_conninfo
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection

from clearinghouse.checkup.findings import Finding, error, ok, warning
from clearinghouse.config import Settings
from clearinghouse.database import cluster_files
from clearinghouse.database.connect import SERVE_ROLE, async_engine, database_now, in_role
from clearinghouse.database.embedded import EmbeddedPostgres
from clearinghouse.instants import rfc3339
from clearinghouse.job_runs import Lead, Standing, lead, standings

NAME: Final = "worker"
JOBS_NAME: Final = "jobs"
CHANNELS_NAME: Final = "alert channels"
MESSAGES_NAME: Final = "messages"
#: One failure may be a database that was away for a moment.
FAILURES_MIN: Final = 2
_CONNECT_TIMEOUT_S: Final = 3
_STATEMENT_TIMEOUT: Final = "3s"
_START: Final = "Run `clearinghouse work` (deploy/clearinghouse-work.service), better two; `clearinghouse dev` has one."

# Given up within a week and not overtaken since, or tried for ten minutes in vain.
_STUCK: Final = """
    SELECT kind, channel, count(*) FILTER (WHERE state = 'dead') AS dead_count,
           count(*) FILTER (WHERE state = 'waiting') AS waiting_count, max(error) AS error
      FROM delivery
     WHERE (state = 'dead' AND ended_at > now() - interval '7 days')
        OR (state = 'waiting' AND attempts_count > 0 AND created_at < now() - interval '10 minutes')
     GROUP BY kind, channel ORDER BY kind, channel
"""


async def check(settings: Settings) -> list[Finding]:
    """Reads only, in the role of the service."""
    conninfo = await asyncio.to_thread(_conninfo, settings)
    if conninfo is None:
        return []
    # A session that may not write, and no transaction to be rolled back: it is looked at and not touched.
    reading = make_conninfo(conninfo, connect_timeout=_CONNECT_TIMEOUT_S, target_session_attrs="any")
    chosen = in_role(
        reading, SERVE_ROLE, application_name="clearinghouse-doctor", statement_timeout=_STATEMENT_TIMEOUT,
        default_transaction_read_only="on",
    )  # fmt: skip
    engine = async_engine(chosen, pool_size=1, autocommit=True)
    try:
        async with engine.connect() as connection:
            return await _findings(connection, settings)
    except (DBAPIError, PoolTimeoutError):
        return []
    finally:
        await engine.dispose()


def _conninfo(settings: Settings) -> str | None:
    """Of the database that the service uses. None where there is none yet."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    if settings.admin_database_url is not None or not (settings.data_dir / cluster_files.CLUSTER_NAME).exists():
        return None
    return EmbeddedPostgres(settings.data_dir).database.conninfo


async def _findings(connection: AsyncConnection, settings: Settings) -> list[Finding]:
    leads = await lead(connection)
    found = [_leader(leads)]
    if leads is not None and leads.is_held:
        found += _jobs(await standings(connection), await database_now(connection))
    if leads is not None:
        found.append(_channels(settings))
        found += _messages((await connection.execute(text(_STUCK))).all())
    return found


def _leader(leads: Lead | None) -> Finding:
    nothing = "nothing that is due by time is done, and nobody is told of anything"
    if leads is None:
        return warning(NAME, f"none has ever run: {nothing}", _START)
    if not leads.is_held:
        return error(NAME, f"none leads; the last was {leads.leader}, since {rfc3339(leads.since)}: {nothing}", _START)
    return ok(NAME, f"{leads.leader} leads since {rfc3339(leads.since)}")


def _jobs(items: Sequence[Standing], now: datetime) -> list[Finding]:
    """One for each job that is not as it should be; one for all where all are."""
    bad = [each for each in items if each.late(now) is not None or each.failures_count >= FAILURES_MIN]
    if not bad:
        return [ok(JOBS_NAME, f"{len(items)}, none of them late or failing")]
    return [_job(each, each.late(now)) for each in bad]


def _job(standing: Standing, late: str | None) -> Finding:
    last = standing.last.error if standing.last is not None else None
    failing = f"has failed {standing.failures_count} times in a row: {last}" if standing.failures_count else ""
    detail = f"{standing.name} {'; it '.join(filter(None, (late, failing)))}"
    return warning(
        JOBS_NAME, detail, f"The worker's log says more; then `clearinghouse jobs run {standing.name}` tries it."
    )


def _channels(settings: Settings) -> Finding:
    """By the settings given, which may not be the worker's."""
    names = sorted(settings.alerts.channels or ())
    if names:
        return ok(CHANNELS_NAME, f"the log, {', '.join(names)}; `clearinghouse alerts test` tries them")
    if settings.database_url is None:
        return ok(CHANNELS_NAME, "the log alone: enough for a first look")
    return warning(
        CHANNELS_NAME, "the log alone, as far as these settings say: nobody is woken",
        "Name some in alerts.channels of the worker's settings (docs/alerts.md), then `clearinghouse alerts test`.",
    )  # fmt: skip


def _messages(rows: Sequence[Any]) -> list[Finding]:
    if not rows:
        return [ok(MESSAGES_NAME, "all that were due have arrived")]
    return [_stuck(row) for row in rows]


def _stuck(row: Any) -> Finding:
    counts = ((row.dead_count, "given up within a week"), (row.waiting_count, "waiting for more than ten minutes"))
    said = " and ".join(f"{count} {what}" for count, what in counts if count)
    what, again = {
        "alert": ("Try the channel: `clearinghouse alerts test --channel {0}`", "`clearinghouse alerts replay`"),
        "notice": ("`clearinghouse notices list --dead` has them", "`clearinghouse notices replay`"),
    }[row.kind]
    return warning(
        MESSAGES_NAME, f"{row.kind}s by {row.channel}: {said} ({row.error or 'no answer yet'})",
        f"{what.format(row.channel)}; {again} sends again what was given up.",
    )  # fmt: skip

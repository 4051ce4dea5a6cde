"""Transactions that have been open for long: as long as they are, PostgreSQL removes no dead row of any table."""

from __future__ import annotations

from typing import Any, Final

import psycopg

from clearinghouse.checkup.findings import Finding, ok, warning

NAME: Final = "database transactions"
#: The book's deltas are rolled up every few seconds, and each leaves dead rows that an evaluation reads past.
AGE_MAX_S: Final = 600

#: Of this database, with a snapshot or a transaction id that others must keep rows for. The oldest first. Of other
#: users it is shown to who has pg_read_all_stats.
_OPEN_FOR_LONG: Final = """
    SELECT pid, usename, application_name, extract(epoch FROM clock_timestamp() - xact_start)::bigint
      FROM pg_stat_activity
     WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
       AND xact_start < clock_timestamp() - make_interval(secs => %s)
       AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
     ORDER BY xact_start
"""
_SEES_ALL: Final = "SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')"


async def open_for_long(connection: psycopg.AsyncConnection[tuple[Any, ...]]) -> Finding:
    """As far as the connection's user may see them."""
    rows = await (await connection.execute(_OPEN_FOR_LONG, [AGE_MAX_S])).fetchall()
    if not rows:
        (sees_all,) = await (await connection.execute(_SEES_ALL)).fetchone() or (False,)
        shown = f"none is older than {AGE_MAX_S // 60} minutes"
        return ok(NAME, shown if sees_all else f"{shown}, of those of our own user: others are not shown to it")
    pid, user, application, age_s = rows[0]
    more = f"; and {len(rows) - 1} more" if len(rows) > 1 else ""
    return warning(
        NAME,
        f"{application or 'a client'} of {user} (process {pid}) has had one open for {age_s // 60} minutes{more}",
        "Let it end (SELECT pg_terminate_backend(…)), and take dumps from a replica: dead rows stay until then, and "
        "coverage is evaluated more and more slowly, in the end not in time.",
    )

"""Connections: how a libpq conninfo becomes an SQLAlchemy engine or a psycopg connection in a given role.

`conninfo` is what libpq accepts: `postgresql://user@host/db?sslmode=verify-full` or `host=/socket/dir dbname=…`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import URL, text
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

SERVE_ROLE = "clearinghouse_serve"
ADMIN_ROLE = "clearinghouse_admin"
WORK_ROLE = "clearinghouse_work"

#: How long whoever wants a connection waits for one, unless told otherwise.
POOL_WAIT_S: Final = 5

#: What an engine raises where its database is away, restarts, has become a read-only standby (an InternalError) or is
#: too busy, or where no connection is left: background work logs it and goes on with its next turn. Whatever else a
#: database says, such as that there is no such table, is a bug in what was asked, and shows as one.
DATABASE_FAILED: Final = (OperationalError, InterfaceError, InternalError, PoolTimeoutError)

#: Where the operator says nothing else. A lost server must show within seconds, not after TCP's default two hours, and
#: of several hosts the one that can be written to is wanted.
DEFAULTS = {
    "target_session_attrs": "read-write",
    "connect_timeout": "5",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}


def in_role(conninfo: str, role: str, *, application_name: str = "clearinghouse", **settings: str) -> str:
    """The same database, but every connection takes `role` on as it starts, with further server settings.

    A transaction that its client forgets is ended: it could hold the lock of an account.
    """
    options = conninfo_to_dict(conninfo).get("options") or ""
    chosen_settings = {"role": role, "idle_in_transaction_session_timeout": "10s", **settings}
    chosen = " ".join(f"-c {name}={value}" for name, value in chosen_settings.items())
    return make_conninfo(
        conninfo, application_name=application_name, options=f"{options} {chosen}".strip(), **_missing(conninfo)
    )


def sync_url(conninfo: str) -> URL:
    """An SQLAlchemy URL for psycopg."""
    return URL.create("postgresql+psycopg", query=_query(conninfo))


def async_engine(
    conninfo: str, *, pool_size: int = 4, autocommit: bool = False, pool_wait_s: int = POOL_WAIT_S
) -> AsyncEngine:
    """An engine for what is not on the hot path. Connects when first used. `autocommit`: no transactions, for looks.

    Whoever wants a connection waits for `pool_wait_s` while all are in use; then it is an error.
    """
    url = URL.create("postgresql+psycopg_async", query=_query(conninfo))
    return _async_engine(url, pool_size, autocommit, pool_wait_s)


def writable_engine(engine: AsyncEngine, *, pool_size: int = 4, pool_wait_s: int = POOL_WAIT_S) -> AsyncEngine:
    """As the same login in the same role, with connections of its own, which write: `engine` may be one that reads."""
    return _async_engine(engine.url, pool_size, autocommit=False, pool_wait_s=pool_wait_s)


def _async_engine(url: URL, pool_size: int, autocommit: bool, pool_wait_s: int) -> AsyncEngine:
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=pool_wait_s,
        pool_pre_ping=True,
        isolation_level="AUTOCOMMIT" if autocommit else "READ COMMITTED",
    )


@asynccontextmanager
async def snapshot(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """All reads in it see one instant, whatever is committed meanwhile. They may take long, and change nothing."""
    async with engine.connect() as connection, snapshot_on(connection) as prepared:
        yield prepared


@asynccontextmanager
async def snapshot_on(unprepared: AsyncConnection) -> AsyncIterator[AsyncConnection]:
    """The same on a connection that is in no transaction: its temporary tables are there to be read, too."""
    connection = await unprepared.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    async with connection.begin():
        await connection.execute(text("SET LOCAL statement_timeout = 0"))
        # It holds no lock that anybody waits for, and its reader may be busy with a slow disk in between.
        await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = '5min'"))
        yield connection


async def database_now(connection: AsyncConnection) -> datetime:
    """UTC, by the database's clock, when the transaction began: what other machines wrote there is judged by it."""
    now: datetime = (await connection.execute(text("SELECT now()"))).scalar_one()
    return now.astimezone(UTC)


def hot_conninfo(conninfo: str) -> str:
    """For the group commit and the batched reads: durable, in the serving role, plans made once and by index only.

    Generic plans are made while tables may still be empty; without these settings such a plan would go on scanning
    tables that have grown since.
    """
    return in_role(
        conninfo,
        SERVE_ROLE,
        application_name="clearinghouse-hot",
        synchronous_commit="on",
        plan_cache_mode="force_generic_plan",
        enable_seqscan="off",
        enable_hashjoin="off",
        enable_mergejoin="off",
        jit="off",
        # An account that somebody else holds is left out of a batch after this long; commit_issuances sees to it.
        lock_timeout="500ms",
        statement_timeout="3s",
    )


def _missing(conninfo: str) -> dict[str, str]:
    given = conninfo_to_dict(conninfo)
    return {name: value for name, value in DEFAULTS.items() if name not in given}


def _query(conninfo: str) -> dict[str, str]:
    """All connection parameters as a URL query: the only place where SQLAlchemy takes a Unix socket as it is."""
    return {name: str(value) for name, value in conninfo_to_dict(conninfo).items() if value is not None}

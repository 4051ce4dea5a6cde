"""What counts as the database's failure, by a real one that restarts, only reads, or is too busy; and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.database.connect import DATABASE_FAILED, async_engine
from clearinghouse.database.embedded import EmbeddedPostgres


async def ask(engine: AsyncEngine, query: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(query))


async def test_a_restart_is_the_databases_failure_under_way_and_meanwhile_and_over_when_it_is_back(
    tmp_path: Path,
) -> None:
    server = EmbeddedPostgres(tmp_path / "data")
    server.start()
    engine = async_engine(server.database.conninfo)
    try:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
            server.stop()
            with pytest.raises(DATABASE_FAILED):
                await connection.execute(text("SELECT 1"))
        with pytest.raises(DATABASE_FAILED):
            await ask(engine, "SELECT 1")
        server = EmbeddedPostgres(tmp_path / "data")
        server.start()
        await ask(engine, "SELECT 1")
    finally:
        await engine.dispose()
        server.stop()


@pytest.mark.parametrize(
    ("setting", "query"),
    [
        ("default_transaction_read_only=on", "CREATE TABLE written (here integer)"),  # a standby after a failover
        ("statement_timeout=50ms", "SELECT pg_sleep(10)"),
        ("lock_timeout=50ms", "LOCK TABLE gateway"),
        ("idle_in_transaction_session_timeout=10s", "SELECT pg_terminate_backend(pg_backend_pid())"),
    ],
)
async def test_a_standby_a_busy_database_and_one_that_ends_connections_are_its_failures(
    database: str, setting: str, query: str
) -> None:
    holder, engine = async_engine(database), async_engine(make_conninfo(database, options=f"-c {setting}"))
    async with holder.begin() as held:
        await held.execute(text("LOCK TABLE gateway"))
        with pytest.raises(DATABASE_FAILED):
            await ask(engine, query)
    await engine.dispose()
    await holder.dispose()


@pytest.mark.parametrize(
    "bug",
    [
        "SELECT * FROM no_such_table",
        "SELEKT 1",
        "SELECT 1 / 0",
        "SELECT 'x'::uuid",
        "INSERT INTO gateway (id, name) VALUES (NULL, 'nobody')",
        "DO $$ BEGIN RAISE 'never'; END $$",
    ],
)
async def test_a_bug_in_what_is_asked_is_none(database: str, bug: str) -> None:
    engine = async_engine(database)
    with pytest.raises(DBAPIError) as raised:
        await ask(engine, bug)
    await engine.dispose()
    assert not isinstance(raised.value, DATABASE_FAILED)

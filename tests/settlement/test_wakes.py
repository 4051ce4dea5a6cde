"""Whoever waits for news from the database hears of it; and somebody is told while nothing can be heard."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
from structlog.testing import capture_logs

from clearinghouse.background import end
from settlement.wakes import wake_on
from tests.parts.database_link import database_link


async def test_it_is_said_once_that_nothing_is_heard_and_once_that_it_is_heard_again(
    database: str, tmp_path: Path
) -> None:
    heard = asyncio.Event()

    async def hears() -> None:
        async with asyncio.timeout(30):
            await heard.wait()
        heard.clear()

    async with database_link(database, tmp_path) as link:
        with capture_logs() as logs:
            listening = asyncio.create_task(wake_on(link.conninfo, "payments", "test-wakes", heard.set, 0.02))
            try:
                await hears()
                with psycopg.connect(database, autocommit=True) as connection:
                    connection.execute("NOTIFY payments")
                await hears()
                assert logs == []
                link.cut()
                await asyncio.sleep(0.5)  # it tries again and again
                await link.mend()
                await hears()
            finally:
                await end(listening)
    assert [(log["event"], log["log_level"], log["channel"]) for log in logs] == [
        ("wakes_not_heard", "warning", "payments"), ("wakes_heard_again", "info", "payments"),
    ]  # fmt: skip

"""Whose escrows are read: all of our senders', as soon as the database has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.chain_senders import KnownSenders
from clearinghouse.database.connect import SERVE_ROLE, async_engine, in_role
from clearinghouse.identity import webhook_signers
from tests.parts.database_link import database_link

FIRST, SECOND = b"\x51" * 20, b"\x52" * 20


async def _add_signer(admin: AsyncEngine, name: str, sender: bytes) -> None:
    async with admin.begin() as connection:
        await webhook_signers.create(connection, name, sender=sender, pepper=b"p" * 32)


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0.02)


async def test_a_new_signers_sender_is_followed_without_a_restart_and_a_lost_database_forgets_nobody(
    database: str, admin: AsyncEngine, tmp_path: Path
) -> None:
    told: list[list[bytes]] = []
    await _add_signer(admin, "one", FIRST)
    async with database_link(database, tmp_path) as link:
        engine = async_engine(in_role(link.conninfo, SERVE_ROLE))
        senders = KnownSenders(engine, lambda found: told.append(list(found)), every_s=0.05)
        senders.start()
        await _until(lambda: bool(told))
        assert told[-1] == [FIRST]
        link.cut()
        await asyncio.sleep(0.3)
        assert told[-1] == [FIRST]
        await link.mend()
        await _add_signer(admin, "two", SECOND)
        await _until(lambda: told[-1] == [FIRST, SECOND])
        await senders.stop()
        await engine.dispose()

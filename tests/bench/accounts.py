"""The customers of a run, made by the code that makes real ones, and the books they leave behind."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from clearinghouse.database.connect import ADMIN_ROLE, async_engine, in_role
from clearinghouse.identity import gateways, keys, webhook_signers
from clearinghouse.ledger import transfers
from clearinghouse.ledger.verify import verify
from tests.bench.failure import BenchFailed

#: A call costs about 0.00002 USD: more than any run can spend.
CREDIT = Decimal(100_000)
ACTOR = "bench"


async def make_gateways(conninfo: str, *, count: int, pepper: bytes) -> list[str]:
    """Gateways with credit; the values of their Authorization headers."""
    engine = async_engine(in_role(conninfo, ADMIN_ROLE), pool_size=1)
    authorizations = []
    try:
        async with engine.begin() as connection:
            for number in range(count):
                gateway = await gateways.create(connection, f"bench-{number}")
                await transfers.grant(connection, gateway.id, CREDIT, reason="bench", actor=ACTOR)
                key = await keys.create(connection, gateway.id, pepper=pepper)
                authorizations.append(f"Bearer {key.api_key}")
    finally:
        await engine.dispose()
    return authorizations


async def make_webhook_signer(conninfo: str, *, pepper: bytes) -> str:
    """A signer that may ask; the value of its Authorization header."""
    engine = async_engine(in_role(conninfo, ADMIN_ROLE), pool_size=1)
    try:
        async with engine.begin() as connection:
            new = await webhook_signers.create(connection, "bench", sender=bytes(20), pepper=pepper)
    finally:
        await engine.dispose()
    return f"Bearer {new.webhook_secret}"


async def settings_of_server(conninfo: str) -> dict[str, str]:
    """What durability rests on, and the version."""
    engine = async_engine(conninfo, pool_size=1)
    try:
        async with engine.connect() as connection:
            names = ("server_version", "fsync", "full_page_writes", "wal_sync_method")
            return {name: (await connection.execute(text(f"SHOW {name}"))).scalar_one() for name in names}
    finally:
        await engine.dispose()


class Books(NamedTuple):
    """What the ledger says after a run."""

    issuances: int
    tickets: int
    claims_verified: int


async def require_books(conninfo: str, *, answers: int) -> Books:
    """BenchFailed unless the ledger verifies and holds one issuance for each answer that the callers got."""
    engine = async_engine(in_role(conninfo, ADMIN_ROLE), pool_size=1)
    try:
        report = await verify(engine)
        if not report.is_clean:
            raise BenchFailed(f"the ledger does not verify: {report.findings}")
        issuances, tickets = await _issued(engine)
    finally:
        await engine.dispose()
    if issuances != answers:
        raise BenchFailed(f"the callers got {answers} payments, the ledger has {issuances} issuances")
    return Books(issuances, tickets, len(report.verdicts))


async def _issued(engine: AsyncEngine) -> tuple[int, int]:
    async with engine.connect() as connection:
        row = (await connection.execute(text("SELECT count(*), coalesce(sum(num_tickets), 0) FROM issuance"))).one()
        return int(row[0]), int(row[1])

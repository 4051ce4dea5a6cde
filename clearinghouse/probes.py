"""What readiness asks of the parts of a service, and the words it tells operators in."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from chain.signatures import checksum_address
from clearinghouse.database.connect import DATABASE_FAILED
from clearinghouse.readiness import NotReady
from clearinghouse.signers.native import NativeSigner
from clearinghouse.signers.pool import SignerPool


async def probe_database(engine: AsyncEngine) -> str:
    try:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
    except DATABASE_FAILED:
        raise NotReady("the database does not answer: check that it runs and that database_url is right") from None
    return "answers"


async def probe_native(signer: NativeSigner, *, is_simulated: bool) -> str:
    escrow = "a simulated escrow" if is_simulated else "the escrow that is read from the chain"
    return f"native, signs as {checksum_address(signer.address)} over {escrow}"


async def probe_pool(pool: SignerPool) -> str:
    members = pool.members()
    healthy = [member for member in members if member.healthy]
    if not healthy:
        raise NotReady("no signer is healthy: " + ", ".join(f"{member.name} {member.last_error}" for member in members))
    return f"{len(healthy)} of {len(members)} signers healthy"


async def probe_members(pool: SignerPool) -> str:
    members = pool.members()
    if out := [f"{member.name} {member.last_error}" for member in members if not member.healthy]:
        raise NotReady(", ".join(out))
    return f"all {len(members)} signers healthy"

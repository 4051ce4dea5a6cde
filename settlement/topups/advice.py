"""What coverage advises: its newest snapshot of an escrow that has an outlook."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from chain.funding import Amounts
from chain.signatures import parse_address
from clearinghouse.config import Settings
from settlement.topups.conditions import Condition, TopupRefused
from settlement.topups.planning import Advice

#: The newest with an outlook: one that a change of level wrote a moment ago may have none yet.
_NEWEST: Final = """
    SELECT sender, observed_at, block_number, simulated, deposit_wei, reserve_wei,
           top_up_deposit_wei, top_up_reserve_wei
      FROM coverage_snapshot WHERE sender = :sender
     ORDER BY (top_up_deposit_wei IS NULL OR top_up_reserve_wei IS NULL), observed_at DESC LIMIT 1
"""


async def newest_advice(connection: AsyncConnection, sender: bytes) -> Advice | None:
    """None where coverage of the sender was never computed."""
    row = (await connection.execute(text(_NEWEST), {"sender": sender})).mappings().one_or_none()
    if row is None:
        return None
    deposit_wei, reserve_wei = row["top_up_deposit_wei"], row["top_up_reserve_wei"]
    return Advice(
        sender=bytes(row["sender"]),
        observed_at=row["observed_at"],
        block_number=row["block_number"],
        simulated=row["simulated"],
        deposit_wei=int(row["deposit_wei"]),
        reserve_wei=int(row["reserve_wei"]),
        top_up=Amounts(int(deposit_wei), int(reserve_wei)) if None not in (deposit_wei, reserve_wei) else None,
    )


def escrow_to_fund(settings: Settings) -> bytes:
    """The sender (20 bytes) whose escrow is topped up: what an operator wrote down. Raises TopupRefused without that.

    Never what the database has: coverage is written by the service that signs, and whoever got hold of that could have
    money sent into an escrow of their own.
    """
    named = settings.topups.sender or settings.signer.go_livepeer.expected_address
    if named is None:
        raise TopupRefused(Condition.SENDER_UNKNOWN, "the settings do not say whose escrow it is")
    return parse_address(named)

"""The chain's events as they were recorded, for whoever asks."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from chain.signatures import checksum_address
from clearinghouse.ids import show

_EVENTS: Final = """
    SELECT event.*, event.block_number <= follower.confirmed_block AS is_confirmed
      FROM chain_event AS event CROSS JOIN chain_follower AS follower
     WHERE (CAST(:kind AS text) IS NULL OR kind = :kind)
       AND (NOT :foreign_only OR status IN ('foreign', 'altered'))
     ORDER BY block_number DESC, log_index DESC LIMIT :limit
"""


async def list_events(
    connection: AsyncConnection, *, limit: int, kind: str | None = None, foreign_only: bool = False
) -> list[dict[str, Any]]:
    """The newest events first, as JSON has them: amounts and rounds as decimal strings, what an event lacks as None."""
    rows = await connection.execute(text(_EVENTS), {"limit": limit, "kind": kind, "foreign_only": foreign_only})
    return [_shown(row) for row in rows.mappings()]


def _shown(row: Any) -> dict[str, Any]:
    return {
        "block_number": row["block_number"],
        "log_index": row["log_index"],
        "transaction_hash": f"0x{row['transaction_hash'].hex()}",
        "confirmed": row["is_confirmed"],
        "kind": row["kind"],
        "sender": _address(row["sender"]),
        "party": _address(row["party"]),
        "amount_wei": _digits(row["amount_wei"]),
        "reserve_wei": _digits(row["reserve_wei"]),
        "round": _digits(row["round"]),
        "status": row["status"],
        "gateway_id": _id("gw", row["gateway_id"]),
        "issuance_id": _id("iss", row["issuance_id"]),
    }


def _address(value: bytes | None) -> str | None:
    return checksum_address(value) if value is not None else None


def _digits(value: Any) -> str | None:
    return f"{value:f}" if value is not None else None


def _id(kind: Any, value: UUID | None) -> str | None:
    return show(kind, value) if value is not None else None
